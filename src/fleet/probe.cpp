// SPDX-License-Identifier: Apache-2.0
#include "fleet/probe.h"

#include <utility>

#include "http/head_writer.h"

namespace sluice::fleet {

void KeeperContext::log(const Instance& instance, std::string_view text) const {
    if (!options.log) return;
    std::string line(name_of(instance.role));
    line += ' ';
    line += instance.url;
    line += ' ';
    line += text;
    options.log(line);
}

std::string ProbeAnswer::describe() const {
    return status == 0 ? why : "answered with status " + std::to_string(status);
}

Probe::Probe(KeeperContext& context, Done done)
    : context_(context),
      done_(done),
      request_(*this),
      deadline_(Delegate<void()>::to<&Probe::on_deadline>(*this)) {}

void Probe::get(http::UpstreamPool& pool, const Question& question) {
    ASSERT(!active_);
    active_ = true;
    answer_ = ProbeAnswer();
    body_max_ = question.body_max;
    SliceQueue message = make_message(question);
    if (message.empty()) {
        // Told by the timer: nobody expects the answer from within this call.
        answer_.why = "was not asked: out of buffer memory";
        context_.loop.arm(deadline_, Duration::zero());
        return;
    }
    context_.loop.arm(deadline_, context_.options.probe_timeout);
    request_.start(pool, std::move(message));
}

SliceQueue Probe::make_message(const Question& question) {
    TextWriter writer(context_.texts);
    writer.append("GET ");
    writer.append(question.path);
    writer.append(" HTTP/1.1\r\n");
    http::write_field(writer, "Host", question.host_header);
    http::write_field(writer, "Accept", "application/json, */*");
    http::write_field(writer, "User-Agent", "sluice");
    if (question.with_key && !context_.options.upstream_api_key.empty()) {
        writer.append("Authorization: Bearer ");
        writer.append(context_.options.upstream_api_key);
        writer.append("\r\n");
    }
    writer.append("\r\n");
    SliceQueue message;
    message.push(writer.finish());
    return message;
}

void Probe::cancel() {
    active_ = false;
    deadline_.cancel();
    request_.cancel();
}

void Probe::on_response_head(const http::ResponseHead& head) { answer_.status = head.status; }

void Probe::on_response_body(Slice bytes) {
    if (answer_.body.size() + bytes.size > body_max_)
        return give_up("sent more than " + std::to_string(body_max_) + " bytes");
    answer_.body += bytes.view();
}

void Probe::on_response_end() { finish(); }

void Probe::on_response_failed(const http::ClientFailure& failure) {
    answer_.not_connected = failure.kind == http::ClientFailure::Kind::Connect ||
                            failure.kind == http::ClientFailure::Kind::ConnectTimeout;
    give_up(failure.describe());
}

void Probe::on_deadline() {
    give_up(answer_.why.empty() ? "did not answer in time" : std::move(answer_.why));
}

void Probe::give_up(std::string why) {
    request_.cancel();
    answer_.status = 0;
    answer_.body.clear();
    answer_.why = std::move(why);
    finish();
}

void Probe::finish() {
    active_ = false;
    deadline_.cancel();
    // The asker may ask again at once, which takes a new answer_.
    const ProbeAnswer answer = std::exchange(answer_, ProbeAnswer());
    done_(answer);
}

}  // namespace sluice::fleet
