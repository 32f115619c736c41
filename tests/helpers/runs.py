"""The settings of a run that exists only as files, what its config.json records, and the record of a model."""

IDENTITY = {
    **dict(dataset="digits", network="ConvNet", optimizer="MSGD", lr=0.05, batch_size=256, epochs=40),
    **dict(precision="bf16", augment=True, n_train=478, n_train_is_default=True, exp_idx=0, lr_step=80),
    **dict(target_inclusion="half", data_fingerprint="f" * 64),
}
RECORDED = {"flags": {"n_runs": 2, "n_shadows": 6}, "provenance": {"command": "train"}}  # beside the identity
RECORD = {"test_accuracy": 0.5, "train_accuracy": 0.75, "epsilon": None, "seconds": 1.5, "device": "cpu x"}
