from flows.failures import remedy_markdown


def test_a_failed_stage_is_named_with_its_reason_and_what_to_start() -> None:
    text = remedy_markdown("describe", "the engine died", {"config": "configs/shop.yaml"})
    assert text.startswith("# Stage describe failed") and "the engine died" in text
    assert "deployment `nightly/nightly`, with `start_from` set to `describe`" in text
    assert "`dmesr run --config configs/shop.yaml --from describe`" in text


def test_what_the_run_was_given_is_given_again() -> None:
    given = {"config": "shop.yaml", "data": "/tonight's", "settings": ["describe.prompts=[a, b]"]}
    text = remedy_markdown("ingest", "no such folder", given)
    assert (
        "`dmesr run --config shop.yaml --data '/tonight'\"'\"'s' --set 'describe.prompts=[a, b]' --from ingest`" in text
    )
    assert "the same `data` and `settings`" in text
    assert "--data" not in remedy_markdown("embed", "full disk", given)  # the delivery is in the store by then


def test_no_line_of_a_reason_is_markup() -> None:
    reason = "crashed; last lines:\n```\n# Go on with\n\n![](http://elsewhere/x.png)"
    for stage in ("describe", None):
        lines = remedy_markdown(stage, reason, {}).splitlines()
        assert all(f"    {line}" in lines and (line not in lines or not line) for line in reason.splitlines())


def test_a_stage_that_was_run_alone_is_run_alone_again() -> None:
    given = {"config": "shop.yaml", "items": "/new", "retry_failed": True, "settings": ["describe.workers=2"]}
    text = remedy_markdown("describe", "boom", given, alone=True)
    settings = "--set describe.workers=2 --set 'describe.items=\"/new\"' --set describe.retry_failed=true"
    assert f"`dmesr run --config shop.yaml {settings} --only describe`" in text
    assert "the same `settings` and `items` and `retry_failed`" in text
    assert "nightly" not in text
    text = remedy_markdown("recommend", "boom", {"config": "shop.yaml", "users": "/some", "force": True}, alone=True)
    assert "`dmesr run --config shop.yaml --set 'recommend.users=\"/some\"' --force --only recommend`" in text


def test_a_run_that_failed_outside_any_stage_says_why() -> None:
    text = remedy_markdown(None, "shop.yaml: trian: no such key", {})
    assert "no such key" in text and "Start it again" in text
