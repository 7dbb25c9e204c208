"""The project's own HTTP interface: parameters, replies, formats, errors and the page."""
