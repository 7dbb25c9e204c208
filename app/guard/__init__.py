"""It stands between the network and the endpoints: connections, admission, bytes in flight, log and metrics."""
