"""What lives as long as the process is here: settings, models, kept uploads, and the queue before the worker processes."""
