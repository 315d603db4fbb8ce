// SPDX-License-Identifier: Apache-2.0
// Finds stop strings in a text that grows token by token, and holds back what could be the
// beginning of one. Threads: one. Owns: the text held back, shorter than the longest stop string.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::engine {

class StopMatcher {
public:
    StopMatcher() = default;
    StopMatcher(std::vector<std::string> stops, bool include_stop)
        : stops_(std::move(stops)), include_stop_(include_stop) {
        for (const std::string& stop : stops_) longest_ = std::max(longest_, stop.size());
    }

    // Appends the text that may be sent to `out`. Points to the stop string that was hit, if one
    // was; the text ends there.
    const std::string* feed(std::string_view text, std::string& out) {
        if (stops_.empty()) {
            out.append(text);
            return nullptr;
        }
        held_.append(text);
        const std::string* hit = nullptr;
        std::size_t hit_at = std::string::npos;
        for (const std::string& stop : stops_) {
            const auto at = held_.find(stop);
            if (at < hit_at) {
                hit_at = at;
                hit = &stop;
            }
        }
        if (hit != nullptr) {
            out.append(held_, 0, hit_at + (include_stop_ ? hit->size() : 0));
            held_.clear();
            return hit;
        }
        if (held_.size() >= longest_) {
            const std::size_t sure = held_.size() - (longest_ - 1);
            out.append(held_, 0, sure);
            held_.erase(0, sure);
        }
        return nullptr;
    }

    // The end has come without a stop string.
    void flush(std::string& out) {
        out.append(held_);
        held_.clear();
    }

private:
    std::vector<std::string> stops_;
    std::string held_;
    std::size_t longest_ = 0;
    bool include_stop_ = false;
};

}  // namespace sluice::engine
