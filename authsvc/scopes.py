"""What the ASGI entrance and the worker class tell each other in the scope of a request."""

PREFIX = "/mqtt/"  # of the paths of questions
CALLER_IS_KNOWN = "authsvc.caller_is_known"  # set with the answer to a question: whether its token was valid
