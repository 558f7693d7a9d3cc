"""How much memory a stage takes at most: sampled while it runs, over its process and those that it starts."""

import threading
from collections.abc import Iterable
from types import TracebackType

import psutil

_SECONDS_BETWEEN_SAMPLES = 0.25
_MIB = 2**20

HOST = "MiB of memory"
GPU = "MiB of GPU memory"


class PeakMemory:
    """Samples until the block ends.

    Host memory is the sum of what the processes hold resident; pages that they share count in each. Processes below
    this one that were there before (a server, say) don't count. GPU memory is what all GPUs hold beyond what they held
    at the start, whoever holds it.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = {child.pid for child in self._process.children(recursive=True)}
        self._gpus = _Gpus()
        self._host, self._gpu = 0, 0
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample_until_ended, name="peak-memory", daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._sampler.join()
        self._sample()

    def figures(self) -> dict[str, int]:
        """The highest samples so far, by HOST and, where there is a GPU, GPU."""
        return {HOST: self._host // _MIB} | ({GPU: self._gpu // _MIB} if self._gpus.present else {})

    def _sample_until_ended(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_SAMPLES):
            self._sample()

    def _sample(self) -> None:
        children = self._process.children(recursive=True)
        ours = [self._process, *(child for child in children if child.pid not in self._before)]
        self._host = max(self._host, _resident(ours))
        self._gpu = max(self._gpu, self._gpus.used_since_start())


def _resident(processes: Iterable[psutil.Process]) -> int:
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.Error:  # it has just ended
            continue
    return total


class _Gpus:
    """NVIDIA's GPUs, through the library that comes with CUDA builds of vLLM; none where that is missing."""

    def __init__(self) -> None:
        self._devices: list[object] = []
        try:
            import pynvml
        except ImportError:
            return
        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
            self._devices = [pynvml.nvmlDeviceGetHandleByIndex(place) for place in range(pynvml.nvmlDeviceGetCount())]
        except pynvml.NVMLError:  # no driver
            return
        self._at_start = self._used()

    @property
    def present(self) -> bool:
        return bool(self._devices)

    def used_since_start(self) -> int:
        return max(self._used() - self._at_start, 0) if self._devices else 0

    def _used(self) -> int:
        try:
            return sum(int(self._nvml.nvmlDeviceGetMemoryInfo(device).used) for device in self._devices)
        except self._nvml.NVMLError:  # of this kind of device, or now, nothing is known
            self._devices = []
            return 0
