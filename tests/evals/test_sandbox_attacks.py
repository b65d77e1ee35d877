"""Programs cannot hurt the machine, nor outlive their time.

`pytest -s tests/evals/test_sandbox_attacks.py` prints the table of attacks.
"""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time

import psutil
import pytest

from nanochat_jax.evals import sandbox
from nanochat_jax.evals.jail import child, launch
from tests import needs

SETS = (("namespaces", "seccomp"), ("namespaces",), ("landlock", "seccomp"))
TABLE: list[str] = []


def unusable(layers):
    """Those of the layers that this kernel does not give to us."""
    return [name for name in layers if sandbox.try_layers((name,)).error]


def test_this_machine_can_hold_programs_at_all():
    # Each attack is skipped where its layers are not to be had, so without any nothing is tried.
    if all(map(unusable, SETS)):
        needs.missing(f"no set of layers is usable here: {[unusable(s) for s in SETS]}")


@pytest.fixture(scope="module", autouse=True)
def table():
    """Prints what each attack came to. Elsewhere nothing would hold these programs from harm."""
    needs.linux("what holds these programs")
    yield
    print("\n| attack | layers | what happened | seconds |\n|---|---|---|---:|")
    print("\n".join(TABLE))


@pytest.fixture(params=SETS, ids="+".join)
def attack(request):
    """Runs an attack under a set of layers, bounded in time, and keeps a line of the table."""
    if names := unusable(request.param):
        pytest.skip(f"not on this machine: {', '.join(names)}")

    def run(what: str, code: str, timeout_s: float = 20.0, **more) -> sandbox.Result:
        start = time.monotonic()
        source = textwrap.dedent(code)
        result = sandbox.run_python(source, timeout_s=timeout_s, layers=request.param, **more)
        took = time.monotonic() - start
        told = result.error or " ".join(result.stdout.split())[:80]
        TABLE.append(f"| {what} | {' + '.join(request.param)} | {told} | {took:.2f} |")
        assert took < timeout_s + 10
        return result

    return run


@pytest.fixture
def left_behind(monkeypatch):
    """What sandboxes leave in the folder for temporary files, which no other test uses here."""
    with tempfile.TemporaryDirectory(prefix="attacked-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield lambda: list(pathlib.Path(folder).iterdir())


def test_processes_are_limited_in_number(attack):
    code = """
        import posix, time
        made = 0
        try:
            while made < 100:
                if posix.fork() == 0:
                    time.sleep(9)
                    posix._exit(0)
                made += 1
        except OSError as error:
            print(made, "then", error)
    """
    result = attack("100 forks", code)
    assert int(result.stdout.split()[0]) <= child.PROCESSES


def test_a_fork_bomb_goes_out(attack):
    before = len(psutil.pids())
    code = """
        import posix
        while True:
            try:
                posix.fork()
            except OSError:
                pass
    """
    assert attack("fork bomb", code, timeout_s=1.0).timeout
    assert len(psutil.pids()) < before + 50


def test_threads_are_limited_by_memory(attack):
    code = """
        import threading, time
        for _ in range(10**6):
            threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
    """
    assert not attack("a million threads", code).success


@pytest.mark.parametrize(
    "how", ["bytearray(10 << 30)", "[bytearray(1 << 20) for _ in range(10240)]"]
)
def test_memory_beyond_the_limit_is_refused(attack, how):
    free = psutil.virtual_memory().available
    result = attack("10 GB", f"x = {how}")
    assert result.memory_exceeded and result.error.startswith("memory limit exceeded")
    assert psutil.virtual_memory().available > free - (2 << 30)


def test_endless_output_is_dropped(attack):
    held = psutil.Process().memory_info().rss
    result = attack("endless output", "while True:\n    print('x' * 10000)", timeout_s=1.0)
    assert result.timeout and result.stdout.endswith("bytes more were dropped]")
    assert len(result.stdout) < launch.OUTPUT_BYTES + 100
    assert psutil.Process().memory_info().rss < held + (64 << 20)


def test_nothing_is_written_outside(attack, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("safe")
    places = [str(mine), str(tmp_path / "new"), os.path.expanduser("~/new"), "/new", "/etc/new",
              "/usr/lib/new", os.path.dirname(os.__file__) + "/new", "/dev/shm/new",
              str(pathlib.Path(__file__).parent / "new")]  # fmt: skip
    code = f"""
        import posix
        for path in {places!r}:
            for call in (lambda: open(path, "w"), lambda: posix.unlink(path),
                         lambda: posix.mkdir(path), lambda: posix.chmod(path, 0o777)):
                try:
                    call()
                except OSError:
                    continue
                print("REACHED", path)
        open("own", "w").write("x" * 1000)
        print(open("own").read(1), "only in its own directory")
    """
    result = attack("writing outside", code)
    assert result.success and "REACHED" not in result.stdout
    assert mine.read_text() == "safe" and not any(os.path.exists(p) for p in places[1:])


def test_the_home_directory_and_the_environment_are_not_read(attack, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "swordfish")
    (tmp_path / "secret").write_text("swordfish")
    me, home = os.getpid(), os.path.expanduser("~")
    code = f"""
        import os
        print(dict(os.environ), os.environb)
        for path in [{str(tmp_path / "secret")!r}, "/proc/{me}/environ", "/proc/self/environ",
                     "/proc/1/environ", "/etc/passwd", "/proc/{me}/mem"]:
            try:
                print("OPENED", path, open(path, "rb").read(10**6))
            except OSError:
                pass
        for folder in [{str(tmp_path)!r}, {home!r}, "/proc", "/etc"]:
            try:
                print("LISTED", folder, sorted(os.listdir(folder))[:5])
            except OSError:
                pass
    """
    result = attack("reading home and environment", code)
    assert result.success and "swordfish" not in result.stdout and "OPENED" not in result.stdout
    names = set(os.listdir(home))
    shown = [line for line in result.stdout.splitlines() if line.startswith(f"LISTED {home} ")]
    assert not shown or len(names & set(eval(shown[0].split(" ", 2)[2]))) <= 1  # Python lies there


def test_other_processes_are_not_killed(attack):
    with subprocess.Popen(["sleep", "60"]) as decoy:
        code = f"""
            import os, posix, signal
            for pid in ({decoy.pid}, os.getppid(), -{decoy.pid}):
                try:
                    posix.kill(pid, signal.SIGKILL)
                    print("sent to", pid)
                except OSError as error:
                    print(type(error).__name__)
            try:
                posix.kill(-1, 0)
            except OSError as error:
                print(type(error).__name__)
            print("parent", os.getppid())
        """
        result = attack("killing the parent and others", code)
        assert decoy.poll() is None and result.success
        assert f"sent to {decoy.pid}" not in result.stdout
        decoy.kill()


def test_no_socket_reaches_a_server(attack):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        code = f"""
            import socket
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                try:
                    s = socket.socket(socket.AF_INET, kind)
                    s.settimeout(0.5)
                    s.connect({server.getsockname()!r})
                    s.send(b"hello")
                    print("REACHED")
                except OSError as error:
                    print(error)
        """
        result = attack("opening sockets", code)
        with pytest.raises(TimeoutError):
            server.accept()
    assert result.success and "REACHED" not in result.stdout


def test_the_working_directory_may_be_deleted(attack, left_behind):
    code = """
        import os, posix
        posix.mkdir("a")
        open("a/b", "w").close()
        where = posix.getcwd()
        posix.chdir("/")
        posix.unlink(where + "/a/b")
        try:
            posix.rmdir(where + "/a")
            posix.rmdir(where)
        except OSError as error:
            print(error)
    """
    assert attack("deleting the working directory", code).success
    assert not left_behind()


def test_a_full_disk_is_only_the_program_s_own(attack, left_behind):
    code = """
        try:
            for i in range(100):
                with open(str(i % 3), "ab") as file:
                    file.write(b"x" * (4 << 20))
        except OSError as error:
            print(error)
    """
    assert "arge" in attack("filling the disk", code).stdout
    assert not left_behind()


def test_sleeping_for_ever_ends(attack):
    result = attack("sleeping for ever", "import time\ntime.sleep(1e6)", timeout_s=1.0)
    assert result.timeout and not result.success and result.seconds < 2


def test_signals_are_no_shield(attack):
    code = """
        import signal
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, lambda *_: None)
        while True:
            pass
    """
    assert attack("ignoring every signal", code, timeout_s=1.0).timeout


DAEMON = """
    import os, posix, time
    try:
        if posix.fork() == 0:
            os.setsid()
            if posix.fork() == 0:
                print("daemon", posix.getpid(), flush=True)
                if {closes}:
                    os.closerange(0, 64)
                time.sleep(60)
            posix._exit(0)
        time.sleep(0.3)
    except OSError as error:
        print(error)
"""


@pytest.mark.parametrize("closes", [False, True])
def test_a_daemon_does_not_survive(attack, closes):
    attack("a daemon left behind", DAEMON.format(closes=closes))
    assert not orphans()


def test_a_daemon_that_did_survive_would_be_found():
    # As the one above leaves its parents.
    code = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)"
    name = f"left behind by {os.getpid()}"  # that it is ours alone: nobody else's may be killed
    subprocess.run([sys.executable, "-c", code, name], check=True)
    found = orphans(name)
    for process in found:
        process.kill()
    assert len(found) == 1


@pytest.mark.parametrize("closes", [False, True])
def test_a_daemon_is_found_without_namespaces_too(closes):
    code = textwrap.dedent(DAEMON.format(closes=closes))
    result = sandbox.run_python(code, layers=())
    pid = int(result.stdout.split()[1])
    assert result.success and not psutil.pid_exists(pid)


def orphans(name: str = "evals.jail") -> list[psutil.Process]:
    """Processes of that name that no test or evaluation, of whomever, stands above any more."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess):
            above = [" ".join(p.cmdline()) for p in process.parents() if p.pid != 1]
            if name in str(process.cmdline()) and not any("python" in x for x in above):
                found.append(process)
    return found


def test_a_run_ends_with_the_evaluation_that_started_it():
    code = (
        "from nanochat_jax.evals import sandbox\n"
        "sandbox.run_python('while True: pass', timeout_s=60)"
    )
    evaluation = subprocess.Popen([sys.executable, "-c", code], cwd=launch.ROOT)
    try:
        busy = wait_for(lambda: any(spent(p) > 0.5 for p in descendants(evaluation.pid)))
        mine = descendants(evaluation.pid)
    finally:
        evaluation.send_signal(signal.SIGKILL)
        evaluation.wait()
    # Soon, but a busy machine may first have to start what is to end; the program has a minute.
    assert busy and mine and wait_for(lambda: not any(running(p) for p in mine), limit_s=40)


def descendants(pid: int) -> list[psutil.Process]:
    """Keepers and programs below an evaluation, the starting and ending ones as luck has it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def spent(process: psutil.Process) -> float:
    """Seconds of processor time; more than any trial of a layer takes once a program runs."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cpu_times().user
    return 0.0


def running(process: psutil.Process) -> bool:
    """False of an ended process too that nobody waits for: in a container, process 1 may not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def wait_for(holds, limit_s: float = 10.0) -> bool:
    end = time.monotonic() + limit_s
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()
