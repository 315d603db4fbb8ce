// SPDX-License-Identifier: Apache-2.0
#include "pd/access_record.h"

#include <fmt/format.h>

#include <iterator>

#include "json/value.h"

namespace sluice::pd {

namespace {

// Writes members; the first ends the brace, the others follow a comma.
class Line {
public:
    explicit Line(std::string& out) : out_(out) { out_ += '{'; }

    void text(std::string_view name, std::string_view value) {
        char escaped[256 * json::kEscapeGrowthMax];
        key(name);
        out_ += '"';
        out_ += json::escape(value, escaped).value_or(std::string_view());
        out_ += '"';
    }
    void text_if_any(std::string_view name, std::string_view value) {
        if (!value.empty()) text(name, value);
    }
    void number(std::string_view name, std::uint64_t value) {
        key(name);
        fmt::format_to(std::back_inserter(out_), "{}", value);
    }
    void flag(std::string_view name, bool value) {
        key(name);
        out_ += value ? "true" : "false";
    }
    // Milliseconds from `from`; left out if it did not happen.
    void moment(std::string_view name, Instant from, Instant at) {
        if (at == kNever || from == kNever) return;
        key(name);
        const auto us =
            static_cast<std::uint64_t>(std::max<std::int64_t>(0, (at - from).count())) / 1000;
        fmt::format_to(std::back_inserter(out_), "{}.{:03}", us / 1000, us % 1000);
    }
    void time(std::string_view name, std::chrono::nanoseconds since_epoch) {
        using namespace std::chrono;
        const auto day = floor<days>(since_epoch);
        const year_month_day date{sys_days(day)};
        const hh_mm_ss clock(floor<microseconds>(since_epoch - day));
        key(name);
        fmt::format_to(std::back_inserter(out_), "\"{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z\"",
                       static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                       static_cast<unsigned>(date.day()), clock.hours().count(),
                       clock.minutes().count(), clock.seconds().count(),
                       clock.subseconds().count());
    }
    void end() { out_ += "}\n"; }

private:
    void key(std::string_view name) {
        if (out_.back() != '{') out_ += ',';
        out_ += '"';
        out_ += name;
        out_ += "\":";
    }

    std::string& out_;
};

std::string_view url_of(const AccessContext& context, fleet::Role role, std::uint32_t index) {
    const auto& urls = context.instances[static_cast<std::size_t>(role)];
    return index < urls.size() ? std::string_view(urls[index]) : std::string_view();
}

}  // namespace

void append_access_line(std::string& out, const AccessRecord& record,
                        const AccessContext& context) {
    const Timeline& t = record.timeline;
    const Instant start = t.received != kNever ? t.received : record.ended;
    Line line(out);
    line.time("time", start.time_since_epoch() + context.wall_offset);
    line.text_if_any("request_id", record.request_id.view());
    line.text("path", record.path.view());
    line.text_if_any("model", record.model.view());
    line.number("status", t.status);
    line.text("outcome", name_of(record.outcome));
    line.flag("stream", record.stream);
    if (t.attempts > 0) {
        const bool two_legs = t.dialect != fleet::DialectKind::Unknown;
        line.text("dialect", two_legs ? name_of(t.dialect) : "none");
        line.number("attempts", t.attempts);
        line.text_if_any("prefill", url_of(context, fleet::Role::Prefill, t.prefill_index));
        line.text_if_any("decode", url_of(context, fleet::Role::Decode, t.decode_index));
    }
    if (t.began != kNever) {
        line.moment("receive_ms", start, t.began);
        line.moment("admitted_ms", t.began, t.admitted);
        line.moment("prefill_begin_ms", t.began, t.prefill_began);
        line.moment("prefill_end_ms", t.began, t.prefill_ended);
        line.moment("decode_sent_ms", t.began, t.decode_sent);
        line.moment("decode_head_ms", t.began, t.decode_head);
        line.moment("first_content_ms", t.began, t.first_content);
        line.moment("last_byte_ms", t.began, t.last_byte);
        line.moment("total_ms", t.began, record.ended);
        line.number("pieces", t.pieces);
        line.number("bytes_in", t.client_in);
        line.number("bytes_out", t.client_out);
        line.number("prefill_bytes_out", t.prefill_out);
        line.number("prefill_bytes_in", t.prefill_in);
        line.number("decode_bytes_out", t.decode_out);
        line.number("decode_bytes_in", t.decode_in);
    }
    line.number("sample", record.sample);
    line.end();
}

}  // namespace sluice::pd
