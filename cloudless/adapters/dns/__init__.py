"""Answers DNS questions: the wire format (dnspython) and the sockets. What is answered is decided by `core.naming`."""
