"""The bus: Kafka as every stage uses it, and an Apache Kafka of our own where there is none."""
