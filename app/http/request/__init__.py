"""What a request asks for: its parameters, the models it names, the format it accepts and the photos it is about."""
