"""A list of products, a picture of each, a person's approval, and a DAG that publishes. Needs Airflow 3.1 or later."""

import csv

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Asset, ObjectStoragePath, Param, task

from airflow_provider_comet.operators.batch import CreatePredictionBatchOperator
from airflow_provider_comet.operators.download import DownloadPredictionOutputOperator
from airflow_provider_comet.outputs.markdown import code, picture

FOLDER = ObjectStoragePath("s3://aws_default@my-bucket/pictures")
MODEL = "black-forest-labs/flux-schnell"
APPROVED = Asset("approved-pictures")

with DAG("example_content_pipeline", schedule=None, tags=["example", "cometapi"], default_args={"retries": 2}):

    @task(multiple_outputs=True)
    def products():
        rows = [*csv.DictReader((FOLDER / "products.csv").read_text().splitlines())]
        return {"skus": [row["sku"] for row in rows], "inputs": [{"prompt": row["prompt"]} for row in rows]}

    @task
    def contact_sheet(stored):
        files = [(one["name"], ObjectStoragePath(file["uri"])) for one in stored for file in one["files"]]
        return "\n\n".join(f"{code(sku)} {picture(path.sign(expiration=86400))}" for sku, path in files)

    @task(outlets=[APPROVED], retries=0)
    def approve(stored, answer, outlet_events=None):
        rejected = set(answer["params_input"]["rejected"])
        if unknown := rejected - {one["name"] for one in stored}:
            raise ValueError(f"There is no picture of {unknown}. Clear the review and answer again.")
        outlet_events[APPROVED].extra = {"pictures": [one for one in stored if one["name"] not in rejected]}

    given = products()
    ids = CreatePredictionBatchOperator(task_id="create", model=MODEL, inputs=given["inputs"]).output
    store = DownloadPredictionOutputOperator(task_id="store", prediction=ids, names=given["skus"], output_path=FOLDER)
    form = {"rejected": Param([], type="array", title="Publish all but these SKUs (one a line)")}
    review = ApprovalOperator(task_id="review", subject="Publish?", body=contact_sheet(store.output), params=form)
    approve(store.output, review.output)

with DAG("example_publish", schedule=[APPROVED], tags=["example", "cometapi"]):

    @task
    def publish(triggering_asset_events=None):
        for one in [one for event in triggering_asset_events[APPROVED] for one in event.extra["pictures"]]:
            print(one["name"], [file["uri"] for file in one["files"]])

    publish()
