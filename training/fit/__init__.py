"""One loop trains any module with losses, on a CPU, a GPU or several, resumable to the bit."""
