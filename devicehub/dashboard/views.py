from django.http import HttpRequest, HttpResponse


def fleet(request: HttpRequest) -> HttpResponse:
    return HttpResponse("stub")


def live(request: HttpRequest) -> HttpResponse:
    return HttpResponse("stub")
