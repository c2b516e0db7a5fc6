"""A test of the task for leaks. It fails: the task leaks."""

from django.db import connections
from django.test import TransactionTestCase

from otel_celery_memory.testing import assert_no_leak
from shop.models import Order
from shop.tasks import bill


class BillTest(TransactionTestCase):
    """Not a TestCase: the process of the runs opens a connection of its own."""

    def test_bill_does_not_leak(self):
        """Runs the task 300 times in a process of its own."""
        order = Order.objects.create(customer="Ann")
        assert_no_leak(bill, (order.pk,), set_up=connections.close_all)
