"""What the ASGI entrance and the worker class share: keys of the scope of a request, and headers of answers."""

PREFIX = "/mqtt/"  # of the paths of questions
CALLER_IS_ADMITTED = (
    "authsvc.caller_is_admitted"  # set with the answer to a question: whether its token was valid
)

# Of every answer that is not a question's: browsers run nothing of it, and take it for nothing else.
PROTECTED = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
)
