"""The project's own HTTP interface is here: parameters, replies, formats, errors and the page."""
