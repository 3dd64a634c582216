"""From a request to a stream, of which only headers were read."""
