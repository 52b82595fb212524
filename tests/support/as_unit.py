"""Runs a program under what a systemd unit forbids its processes: as_unit.py UNIT PROGRAM [ARGUMENT ...]

RestrictAddressFamilies=, SystemCallFilter= (a forbidden call ends the process, as systemd has it) and NoNewPrivileges=, by libseccomp,
with the sets of calls that the systemd installed here knows. The other lines of a unit need systemd itself."""
import ctypes
import os
import re
import subprocess
import sys

KILL_PROCESS, ALLOW, EQUAL = 0x80000000, 0x7FFF0000, 4
EAFNOSUPPORT, FAMILIES = 97, {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
PR_SET_NO_NEW_PRIVS = 38
FAMILIES_THERE_ARE = 46


class Comparison(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def values(unit, key):
    return [line.split("=", 1)[1].strip() for line in open(unit, encoding="ascii") if line.startswith(key + "=")]


def calls(name):
    """The calls of a name of SystemCallFilter=, which may be a set of sets."""
    if not name.startswith("@"):
        return {name}
    listed = subprocess.run(["systemd-analyze", "syscall-filter", name], check=True, capture_output=True, text=True).stdout
    names = re.findall(r"^    (?!#)(\S+)", listed, re.MULTILINE)
    assert names, f"systemd does not know {name}"
    return set().union(*(calls(inner) for inner in names))


def allowed_calls(unit):
    allowed = set()
    for line in values(unit, "SystemCallFilter"):
        for name in line.lstrip("~").split():
            allowed = allowed - calls(name) if line.startswith("~") else allowed | calls(name)
    return allowed | calls("@default")


def load(seccomp, context):
    code = seccomp.seccomp_load(context)
    assert code == 0, f"the kernel takes no filter: {os.strerror(-code)}"


def restrict(unit):
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    seccomp.seccomp_load.argtypes = [ctypes.c_void_p]
    seccomp.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Comparison)]
    families = {FAMILIES[name] for line in values(unit, "RestrictAddressFamilies") for name in line.split()}
    assert families and values(unit, "NoNewPrivileges") == ["yes"], "the unit restricts nothing"
    assert ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    sockets = seccomp.seccomp_init(ALLOW)
    socket = seccomp.seccomp_syscall_resolve_name(b"socket")
    for family in set(range(FAMILIES_THERE_ARE)) - families:
        refused = Comparison(0, EQUAL, family, 0)
        assert seccomp.seccomp_rule_add_array(sockets, 0x00050000 | EAFNOSUPPORT, socket, 1, ctypes.byref(refused)) == 0
    filtered = seccomp.seccomp_init(KILL_PROCESS)
    for call in sorted(allowed_calls(unit)):
        number = seccomp.seccomp_syscall_resolve_name(call.encode())
        if number != -1:  # older libseccomp, newer systemd
            seccomp.seccomp_rule_add_array(filtered, ALLOW, number, 0, None)
    load(seccomp, sockets)
    load(seccomp, filtered)


restrict(sys.argv[1])
os.execv(sys.argv[2], sys.argv[2:])
