"""What lives as long as the process: settings, models, kept uploads and the pool of workers."""
