from django.db import migrations


def fill(apps, _):
    product, customer = apps.get_model("shop", "Product"), apps.get_model("shop", "Customer")
    for k in range(8):
        product.objects.create(id=k + 1, sku="sku%d" % k, price="%d.95" % k, stock=100000)
    for k in range(20):
        customer.objects.create(id=k + 1, email="c%d@shop" % k, name="Customer %d" % k)


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
