"""Turns the stand-in's headers into a C program that compiles only beside the real headers if both agree: every enumerator and
macro has the same value, every structure the same members of the same types, every function the same signature. The program refers to
every function, so that it links only if the real libraries have them.
Usage: agreement.py FOLDER > program.c"""
import re
import sys

folder = sys.argv[1]
print("#include <cuda_runtime.h>\n#include <cublasLt.h>\n#include <cudnn.h>\n#include <nccl.h>\n#include <stdio.h>")
counts = {"values": 0, "members": 0, "functions": 0}
functions = []


def same(condition, what):
    print(f'_Static_assert({condition}, "{what}");')


for name in ["cuda_runtime_api.h", "cublasLt.h", "cudnn.h", "nccl.h"]:
    text = open(f"{folder}/{name}", encoding="ascii").read()
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    for macro, value in re.findall(r"^#define (\w+)[ \t]+(.+)$", text, flags=re.M):
        if not macro.startswith("STANDIN_") and value != "\\":  # nor what initialises a structure, in lines
            same(f"({macro}) == ({value})", macro)
            counts["values"] += 1
    text = re.sub(r"^#.*$", "", text, flags=re.M)
    for body in re.findall(r"\benum\b[^;{}]*\{([^}]*)\}", text):
        for enumerator, value in re.findall(r"(\w+)\s*=\s*([^,}]+)", body):
            same(f"(long long){enumerator} == (long long)({value.strip()})", enumerator)
            counts["values"] += 1
    for tag, body, alias in re.findall(r"\bstruct\s*(\w*)\s*\{([^}]*)\}\s*(\w*)\s*;", text):
        structure = alias or f"struct {tag}"
        for member_type, member, array in re.findall(r"([\w ]+?[ *]+)(\w+)((?:\[[^\]]*\])?);", body):
            same(f"__builtin_types_compatible_p(__typeof__((({structure} *)0)->{member}), __typeof__({member_type.strip()} {array}))",
                 f"{structure}.{member}")
            counts["members"] += 1
    for returned, function, parameters in re.findall(r"^([\w ]+?[ *]+)(\w+)\(([^;{}]*?)\);", text, flags=re.M | re.S):
        if "typedef" in returned:
            continue
        print(f"{returned}{function}({parameters});")
        functions.append(function)
        counts["functions"] += 1

print("int main(void)\n{\n    void (*const all[])(void) = {")
for function in functions:
    print(f"        (void (*)(void)){function},")
print("    };\n    size_t there = 0;\n    int devices = 0;")
print("    for (size_t i = 0; i < sizeof all / sizeof *all; i++)\n        there += all[i] != 0;")
print("    cudaError_t error = cudaGetDeviceCount(&devices);")
print('    printf("%zu functions; %d devices: %s\\n", there, devices, cudaGetErrorString(error));')
print("    return 0;\n}")
print("agreement: {values} values, {members} members, {functions} signatures".format(**counts), file=sys.stderr)
