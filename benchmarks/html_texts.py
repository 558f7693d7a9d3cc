"""CPU seconds and memory to take HTML out of ordinary and hostile texts: the project's own way, and libraries'.

    pip install --target PEERS nh3 w3lib lxml
    PYTHONPATH=.:PEERS python benchmarks/html_texts.py

Each text in a process of its own; libraries that are not there are left out.
"""

import importlib.util
import multiprocessing
import resource
import time
from collections.abc import Callable
from html.parser import HTMLParser
from multiprocessing.connection import Connection

from tasks.ingest.cleaning import clean, words_of_html

ORDINARY = "<p>A soft &amp; warm wool sweater.</p><ul><li>made in Ireland</li><li>hand wash</li></ul>" * 4
TEXTS = {
    "text with & and <": "A soft & warm wool sweater, made in Ireland < 10 kg. " * 6,
    "HTML": ORDINARY,
    "tags without an end": "<a " * 16_000,
    "scripts without an end": "<script>" * 8_000,
    "open elements, then paragraphs": "<p>" + "".join(f"<b a={i}>" for i in range(3_300)) + "<p>x" * 8_000,
    "300 elements deep": "<div>" * 300 + "<p>deep",
    "a million characters of elements": "<div>" * 200_000,
}


def with_html_parser(text: str) -> str:
    parser, found = HTMLParser(), list[str]()
    parser.handle_data = found.append  # type: ignore[method-assign]
    parser.feed(text)
    parser.close()
    return "".join(found)


def with_nh3(text: str) -> str:
    import nh3

    return nh3.clean(text, tags={"p", "li"}, attributes={})


def with_w3lib(text: str) -> str:
    from w3lib.html import remove_tags, remove_tags_with_content

    return remove_tags(remove_tags_with_content(text, ("script", "style")))


def with_lxml(text: str) -> str:
    import lxml.html

    return lxml.html.fromstring(text).text_content()


WAYS: dict[str, Callable[[str], str]] = {"clean": clean, "words_of_html": words_of_html}
WAYS |= {"html.parser": with_html_parser, "nh3": with_nh3, "w3lib": with_w3lib, "lxml": with_lxml}


def measure(way: str, name: str, answer: Connection) -> None:
    text, times = TEXTS[name], 2_000 if len(TEXTS[name]) < 1_000 else 1
    WAYS[way](ORDINARY)  # imports
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for _ in range(times):
        words = WAYS[way](text)
    seconds = (time.process_time() - started) / times
    answer.send((seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, len(words)))


def main() -> None:
    print("| text | characters | by | CPU s | MiB more | characters left |\n| --- | --- | --- | --- | --- | --- |")
    for name, text in TEXTS.items():
        for way in WAYS:
            if way in ("nh3", "w3lib", "lxml") and importlib.util.find_spec(way) is None:
                continue
            if way not in ("clean", "words_of_html") and len(text) > 100_000:
                continue  # minutes
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(target=measure, args=(way, name, theirs))
            process.start()
            theirs.close()
            seconds, memory, left = ours.recv()
            process.join()
            print(f"| {name} | {len(text):,} | {way} | {seconds:.6f} | {memory:,.0f} | {left:,} |", flush=True)


if __name__ == "__main__":
    main()
