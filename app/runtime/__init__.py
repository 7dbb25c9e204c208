"""What lives as long as the process: settings, models, kept uploads, and the queue before the worker processes."""
