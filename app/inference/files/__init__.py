"""Files beside the pictures are named, listed, recognised and written whole here."""
