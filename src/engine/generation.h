// SPDX-License-Identifier: Apache-2.0
// One generating HTTP request being answered: its sequences, their text, and the answer, whole or
// streamed.
//
// Made when the body has been checked; ends by its answer, by the client's leaving (cancel), or by
// a fault. Its owner destroys it after on_generation_over(), not within it. Threads: one. Owns: the
// request and the text so far.
#pragma once

#include <memory>
#include <string>

#include "engine/api/format.h"
#include "engine/context.h"
#include "engine/scheduler.h"
#include "http/server_connection.h"

namespace sluice::engine {

class Generation;

class GenerationOwner {
public:
    virtual void on_generation_over(Generation& generation) = 0;

protected:
    ~GenerationOwner() = default;
};

class Generation final : private SequenceEvents {
public:
    Generation(const Context& context, GenerationOwner& owner, Scheduler& scheduler,
               http::ServerConnection& connection, GenerateRequest request, const Fault& fault);
    ~Generation();

    void start(const std::string& request_id, std::int64_t created, const std::string& field_lines);
    // The client has gone; the connection is not touched again.
    void cancel();
    void drained();
    // A streamed answer that is nothing but an error (the data parallel rank is out of range).
    void fail(const ApiError& error);
    bool streams() const { return request_.stream; }
    const Format& format() const { return format_; }

private:
    void on_output(Sequence& sequence, const SequenceOutput& output) override;
    void start_stream(std::string_view field_lines);
    void take_text(Choice& choice, const SequenceOutput& output, std::string& fresh);
    void choice_over(Choice& choice);
    void write(std::string_view text);
    bool struck_mid_stream();
    void send_keep_alive();
    void answer_whole();
    void abort_sequences();
    void tell_connector();
    void over();
    SequenceSpec spec_of(const Choice& choice) const;

    Context context_;
    GenerationOwner& owner_;
    Scheduler& scheduler_;
    http::ServerConnection* connection_;
    const GenerateRequest request_;
    const Format& format_;
    const Fault fault_;
    Answer answer_;
    Timer keep_alive_;
    std::uint32_t tokens_ = 0;  // of all choices
    std::uint32_t choices_left_ = 0;
    bool begun_ = false;
    bool paused_ = false;
    bool over_ = false;
};

}  // namespace sluice::engine
