import django.db.models.deletion
from django.db import migrations, models

from shop.marmot import MarmotId


def new_id():
    return ("id", MarmotId(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"))


def to(model, on_delete=django.db.models.deletion.CASCADE):
    return models.ForeignKey(on_delete=on_delete, to="shop." + model)


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel("Customer", [
            new_id(),
            ("email", models.EmailField(max_length=254, unique=True)),
            ("name", models.CharField(max_length=80)),
            ("visits", models.IntegerField(default=0)),
        ]),
        migrations.CreateModel("Product", [
            new_id(),
            ("sku", models.CharField(max_length=20, unique=True)),
            ("price", models.DecimalField(decimal_places=2, max_digits=8)),
            ("stock", models.IntegerField()),
        ]),
        migrations.CreateModel("Order", [
            new_id(),
            ("customer", to("customer")),
            ("placed", models.DateTimeField(auto_now_add=True)),
            ("paid", models.BooleanField(default=False)),
        ]),
        migrations.CreateModel("Line", [
            new_id(),
            ("order", to("order")),
            ("product", to("product", django.db.models.deletion.PROTECT)),
            ("quantity", models.PositiveIntegerField()),
        ], options={"constraints": [models.UniqueConstraint(fields=("order", "product"), name="one_line_a_product")]}),
    ]
