"""What a request asks for is read here: its parameters, the models it names, the format it accepts and the photos it is about."""
