// SPDX-License-Identifier: Apache-2.0
#include "io/uring/capabilities.h"

#include <liburing.h>
#include <sys/utsname.h>

#include <cerrno>
#include <cstdio>

namespace sluice::io {

namespace {

unsigned setup_flags(TaskRun level) {
    switch (level) {
        case TaskRun::Defer:
            return IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
        case TaskRun::Cooperative:
            return IORING_SETUP_COOP_TASKRUN;
        case TaskRun::Plain:
            return 0;
    }
    return 0;
}

bool try_buffer_ring(io_uring& ring) {
    int error = 0;
    io_uring_buf_ring* buffers = io_uring_setup_buf_ring(&ring, 8, 0, 0, &error);
    if (buffers == nullptr) return false;
    io_uring_free_buf_ring(&ring, buffers, 8, 0);
    return true;
}

int read_int(const char* path) {
    int value = -1;
    if (FILE* file = std::fopen(path, "r")) {
        if (std::fscanf(file, "%d", &value) != 1) value = -1;
        std::fclose(file);
    }
    return value;
}

}  // namespace

UringCapabilities probe_uring() {
    UringCapabilities found;
    utsname name{};
    if (uname(&name) == 0) found.kernel = name.release;

    io_uring ring;
    for (const TaskRun level : {TaskRun::Defer, TaskRun::Cooperative, TaskRun::Plain}) {
        io_uring_params params{};
        params.flags = setup_flags(level);
        const int result = io_uring_queue_init_params(8, &ring, &params);
        if (result == 0) {
            found.available = true;
            found.task_run = level;
            found.features = params.features;
            break;
        }
        found.setup_errno = -result;
        if (result != -EINVAL) break;
    }
    if (!found.available) return found;

    if (io_uring_probe* probe = io_uring_get_probe_ring(&ring)) {
        found.last_opcode = probe->last_op;
        // Multishot accept and buffer rings came in the same release as the socket opcode (45).
        found.multishot_accept = io_uring_opcode_supported(probe, IORING_OP_SOCKET) != 0;
        io_uring_free_probe(probe);
    }
    found.buffer_rings = try_buffer_ring(ring);
    found.registered_ring = io_uring_register_ring_fd(&ring) == 1;
    io_uring_queue_exit(&ring);
    return found;
}

std::string explain_missing(const UringCapabilities& capabilities) {
    if (capabilities.sufficient()) return {};
    if (capabilities.available)
        return "the kernel (" + capabilities.kernel +
               ") is too old for the event loop: Linux 5.19 or newer is needed, 6.1 or newer is "
               "recommended";
    switch (capabilities.setup_errno) {
        case ENOSYS:
            return "io_uring is not in this kernel (" + capabilities.kernel +
                   ") or a seccomp filter hides it; in a container, run with a seccomp profile "
                   "that allows "
                   "io_uring_setup, io_uring_enter and io_uring_register";
        case EPERM:
            if (read_int("/proc/sys/kernel/io_uring_disabled") > 0)
                return "io_uring is switched off: run `sysctl kernel.io_uring_disabled=0`";
            return "io_uring is forbidden, probably by a seccomp filter; in a container, run with "
                   "a seccomp profile "
                   "that allows io_uring_setup, io_uring_enter and io_uring_register";
        case ENOMEM:
            return "not enough locked memory for io_uring: raise the limit (`ulimit -l`) to at "
                   "least 64 MiB";
        default:
            return "io_uring cannot be set up: " +
                   describe({Errc::System, capabilities.setup_errno});
    }
}

}  // namespace sluice::io
