// SPDX-License-Identifier: Apache-2.0
#include "load/process_usage.h"

#include <dirent.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace sluice::load {

namespace {

std::string read_file(const std::string& path) {
    std::string text;
    std::FILE* file = std::fopen(path.c_str(), "re");
    if (file == nullptr) return text;
    char part[4096];
    while (const std::size_t size = std::fread(part, 1, sizeof part, file)) text.append(part, size);
    std::fclose(file);
    return text;
}

// Nanoseconds on a processor, over all threads that still live; 0 where the kernel does not count.
std::uint64_t thread_nanoseconds(const std::string& folder) {
    std::uint64_t sum = 0;
    DIR* tasks = ::opendir((folder + "/task").c_str());
    if (tasks == nullptr) return 0;
    while (const dirent* entry = ::readdir(tasks)) {
        if (entry->d_name[0] == '.') continue;
        const std::string text = read_file(folder + "/task/" + entry->d_name + "/schedstat");
        sum += std::strtoull(text.c_str(), nullptr, 10);
    }
    ::closedir(tasks);
    return sum;
}

// utime and stime: fields 14 and 15 of stat, counted behind the name's closing parenthesis.
double stat_seconds(const std::string& folder) {
    const std::string text = read_file(folder + "/stat");
    const auto name_end = text.rfind(')');
    if (name_end == std::string::npos) return 0;
    const char* at = text.c_str() + name_end + 1;
    for (int field = 3; field < 14 && at != nullptr; ++field) at = std::strchr(at + 1, ' ');
    if (at == nullptr) return 0;
    char* end = nullptr;
    const auto user = std::strtoull(at, &end, 10);
    const auto system = std::strtoull(end, nullptr, 10);
    return static_cast<double>(user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

std::uint64_t kilobytes_of(const std::string& status, const char* field) {
    const auto at = status.find(field);
    return at == std::string::npos
               ? 0
               : std::strtoull(status.c_str() + at + std::strlen(field), nullptr, 10);
}

}  // namespace

std::optional<ProcessUsage> usage_of(int pid) {
    const std::string folder = "/proc/" + std::to_string(pid);
    const std::string status = read_file(folder + "/status");
    if (status.empty()) return std::nullopt;
    ProcessUsage usage;
    const std::uint64_t nanoseconds = thread_nanoseconds(folder);
    usage.cpu_seconds =
        nanoseconds != 0 ? static_cast<double>(nanoseconds) / 1e9 : stat_seconds(folder);
    usage.resident_bytes = kilobytes_of(status, "VmRSS:") * 1024;
    usage.resident_bytes_peak = kilobytes_of(status, "VmHWM:") * 1024;
    return usage;
}

std::string name_of_process(int pid) {
    std::string name = read_file("/proc/" + std::to_string(pid) + "/comm");
    while (!name.empty() && name.back() == '\n') name.pop_back();
    return name;
}

}  // namespace sluice::load
