"""The worker's task. It forgets nothing, which is the leak to be found."""

from celery import shared_task

from shop.models import Order

BILLED = []


@shared_task
def bill(order_id):
    """Sends the bill of an order."""
    order = Order.objects.get(pk=order_id)
    text = f"Dear {order.customer}, please pay. ".ljust(10_000, ".")
    Order.objects.filter(pk=order_id).update(billed=True)
    BILLED.append((order, text + str(order_id)))  # the leak
