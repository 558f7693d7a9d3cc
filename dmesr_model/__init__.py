"""The DMESR model and its trainer: PyTorch only; imports neither Prefect, storage, tasks nor vLLM.

Arrays and files in, arrays and files out:

    features.ItemFeatures         item_ids, views, unique text vectors, where each item's texts stand; save / open
    sequences.Sequences           user histories, flat with offsets; save / open, from_events, leave_one_out
    trainer.fit                   (features, sequences, ModelConfig, TrainConfig, output_dir) -> TrainSummary
    train                         the same as a process: python -m dmesr_model.train JOB.json
    model_config.ModelConfig      parts and sizes of the model; every ablation
    model.DMESR                   from_pretrained(output_dir / "model"), save_pretrained, push_to_hub
    encoding.encode_items         (model, features) -> float32 [N, D], for any items
    encoding.encode_sequences     (model, item vectors, sequences) -> float32 [U, D]; score = inner product
    ranking.rank_by_inner_product full ranking in bounded blocks -> ranks [U]
    metrics                       hit_rate_at_k, ndcg_at_k, mrr_at_k, pessimistic_ranks

An output folder of `fit` holds `model/`, `summary.json`, `progress.jsonl`, `tensorboard/`, `checkpoints/`, `run.json`.
"""
