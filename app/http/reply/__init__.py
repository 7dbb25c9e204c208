"""What is answered: the results, worked out and described, their JSON, their headers and the problem documents."""
