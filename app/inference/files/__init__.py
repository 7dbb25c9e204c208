"""Files beside the pictures: how they are named, listed, recognised and written whole."""
