from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("admin/", admin.site.urls),
    # Browsers ask for it on the pages that name no icon, the admin's.
    path("favicon.ico", RedirectView.as_view(url="/static/shop/favicon.svg")),
    path("", include("project.shop.urls")),
]
