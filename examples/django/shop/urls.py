"""One page: who posts a customer's name has ordered."""

from django.http import JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from shop.models import Order
from shop.tasks import bill


@csrf_exempt
def orders(request):
    """Takes an order and lets the worker send the bill."""
    order = Order.objects.create(customer=request.POST["customer"])
    bill.delay(order.pk)
    return JsonResponse({"order": order.pk})


urlpatterns = [path("orders", orders)]
