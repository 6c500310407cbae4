"""What street scenes have that can be counted, by the names that data sets use."""

THINGS = (
    *("pole", "sign", "traffic sign", "traffic light", "street light", "billboard", "person", "pedestrian", "rider"),
    *("bicyclist", "bicycle", "motorcycle", "car", "van", "pickup", "truck", "bus", "train", "on rails", "trailer"),
    *("caravan", "animal"),
)
