"""The shop's pages, in JSON. Each request that writes is one transaction."""
import json

from django.db import IntegrityError, transaction
from django.db.models import F, Sum
from django.http import JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import path

from shop.models import Customer, Line, Order, Product


def register(request):
    want = json.loads(request.body)
    try:
        with transaction.atomic():
            customer, made = Customer.objects.get_or_create(email=want["email"], defaults={"name": want["name"]})
            Customer.objects.filter(pk=customer.pk).update(visits=F("visits") + 1)
    except IntegrityError:
        return JsonResponse({"error": "taken"}, status=409)
    request.session["customer"] = customer.pk
    return JsonResponse({"customer": customer.pk, "made": made})


@transaction.atomic
def place(request):
    want = json.loads(request.body)
    order = Order.objects.create(customer=get_object_or_404(Customer, email=want["email"]))
    for sku, quantity in want["lines"].items():
        product = Product.objects.get(sku=sku)
        Line.objects.create(order=order, product=product, quantity=quantity)
        Product.objects.filter(pk=product.pk).update(stock=F("stock") - quantity)
    return JsonResponse({"order": order.pk})


@transaction.atomic
def pay(request, order):
    paid = Order.objects.filter(pk=order).update(paid=True)
    return JsonResponse({"paid": paid})


@transaction.atomic
def cancel(request, order):
    for line in Line.objects.filter(order=order).select_related("product"):
        Product.objects.filter(pk=line.product_id).update(stock=F("stock") + line.quantity)
    gone, _ = Order.objects.filter(pk=order).delete()
    return JsonResponse({"gone": gone})


def stock(request):
    sold = Line.objects.aggregate(n=Sum("quantity"))["n"] or 0
    return JsonResponse({"left": {p.sku: p.stock for p in Product.objects.all()}, "sold": sold})


urlpatterns = [
    path("register", register),
    path("orders", place),
    path("orders/<int:order>/pay", pay),
    path("orders/<int:order>/cancel", cancel),
    path("stock", stock),
]
