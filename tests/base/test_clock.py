"""Fits are timed by what they compute, not by how busy the machine is."""

import threading
import time

import torch

from dbksvd.base.clock import read_clock

CPU = torch.device("cpu")


def test_waiting_does_not_count_on_a_cpu():
    started = read_clock(CPU)
    time.sleep(0.2)
    assert read_clock(CPU) - started < 0.1


def test_all_threads_count_on_a_cpu():
    def work() -> None:
        begun = time.thread_time()
        while time.thread_time() - begun < 0.1:
            pass

    started = read_clock(CPU)
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.19 < read_clock(CPU) - started < 1


def test_a_gpu_has_the_clock_on_the_wall():
    started = read_clock(torch.device("cuda"))
    time.sleep(0.05)
    assert read_clock(torch.device("cuda")) - started >= 0.05
