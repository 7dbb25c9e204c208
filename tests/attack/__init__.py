"""`make attack`: what was once tried on the service and broke it, tried again in short."""
