from django.urls import path

from project.shop import views

app_name = "shop"
urlpatterns = [
    path("", views.board, name="board"),
    path("state/", views.state, name="state"),
    path("checkout/", views.checkout, name="checkout"),
    path("visit/", views.visit, name="visit"),
    path("burst/", views.burst, name="burst"),
    path("tune/", views.tune, name="tune"),
    path("reset/", views.reset, name="reset"),
    path("pause/", views.pause, name="pause"),
    path("resume/", views.resume, name="resume"),
]
