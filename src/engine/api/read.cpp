// SPDX-License-Identifier: Apache-2.0
// From a body to a checked request, for each API.
#include <algorithm>

#include "engine/api/body.h"

namespace sluice::engine {

namespace {

void check_model(const GenerateRequest& request, const EngineOptions& options) {
    if (!request.model.empty() && !serves(request.model, options))
        refuse(unknown_model(request.model, options));
}

void check_room(const GenerateRequest& request, const EngineOptions& options) {
    const std::uint32_t room = options.timing.max_model_len;
    for (const Prompt& prompt : request.prompts)
        if (prompt.tokens > room) {
            // Counted only until it is certain.
            const std::string count = std::to_string(room + 1);
            refuse(bad_value("This model's maximum context length is " + std::to_string(room) +
                                 " tokens. However, your prompt contains at least " + count +
                                 " input tokens, which exceeds this limit even without any output "
                                 "tokens. Please reduce the length of the input prompt.",
                             "input_tokens", count));
        } else if (prompt.tokens == room) {
            refuse(bad_value("max_tokens must be at least 1, got 0.", "max_tokens", "0"));
        }
}

void add_message(PromptBuilder& prompt, const Json& message) {
    if (!message.is_object())
        refuse(invalid_body({"model_attributes_type", "messages",
                             "Input should be a valid dictionary", python_input(&message)}));
    const auto role = string_member(message, "role");
    if (!role)
        refuse(invalid_body({"missing", "messages.0.ChatCompletionDeveloperMessageParam.role",
                             "Field required", python_input(&message)}));
    prompt.add_text("<|im_start|>" + *role + "\n");
    for (const auto& [name, value] : message.items()) {
        if (name == "role" || value.is_null()) continue;
        if (name == "content") {
            add_content(prompt, value);
        } else {
            prompt.add_json(value);  // tool_calls, tool_call_id, name, reasoning ...
        }
    }
    prompt.add_text("<|im_end|>\n");
}

void take_prompt(PromptBuilder& builder, const Json& body, GenerateRequest& request) {
    if (request.kv && request.kv->prompt_token_ids)
        builder.set_tokens(*request.kv->prompt_token_ids);
    request.prompts.push_back(builder.finish(body, request.echo, request.return_token_ids));
}

std::vector<Token> token_list(const Json& list) {
    std::vector<Token> tokens;
    tokens.reserve(list.size());
    for (const Json& id : list) {
        if (!id.is_number_integer())
            refuse(invalid_body(
                {"int_type", "prompt", "Input should be a valid integer", python_input(&id)}));
        const auto value = id.get<std::int64_t>();
        if (value < 0 || value > UINT32_MAX)
            refuse(bad_request("Token id " + std::to_string(value) + " is out of vocabulary"));
        tokens.push_back(static_cast<Token>(value));
    }
    return tokens;
}

constexpr std::size_t kPromptsMax = 1024;

}  // namespace

bool serves(const std::string& model, const EngineOptions& options) {
    if (options.served_model_names.empty()) return model == options.model;
    return std::ranges::find(options.served_model_names, model) != options.served_model_names.end();
}

ApiError unknown_model(const std::string& model, const EngineOptions& options) {
    std::string aliases;
    for (const std::string& name : options.served_model_names)
        aliases += (aliases.empty() ? "" : ", ") + name;
    if (aliases.empty()) aliases = options.model;
    return not_found_model("The model `" + model + "` does not exist. Valid aliases: " + aliases +
                           ".");
}

void read_chat(const Json& body, const EngineOptions& options, GenerateRequest& request) {
    const auto messages = body.find("messages");
    if (messages == body.end())
        refuse(invalid_body({"missing", "messages", "Field required", python_input(&body)}));
    if (!messages->is_array())
        refuse(invalid_body(
            {"list_type", "messages", "Input should be a valid list", python_input(&*messages)}));
    if (const Json* choice = find_member(body, "tool_choice");
        choice != nullptr && *choice != "none" && find_member(body, "tools") == nullptr)
        refuse(bad_value("When using `tool_choice`, `tools` must be set.", "tool_choice"));
    read_sampling(body, options, request);
    check_model(request, options);
    if (messages->empty())
        refuse(bad_request(
            "Cannot apply chat template to an empty conversation. Provide at least one message."));
    PromptBuilder prompt;
    read_tools(prompt, body, options);
    for (const Json& message : *messages) add_message(prompt, message);
    if (bool_member(body, "add_generation_prompt", true) &&
        !bool_member(body, "continue_final_message", false))
        prompt.add_text("<|im_start|>assistant\n");
    for (const char* name : {"response_format", "reasoning_effort", "documents", "chat_template",
                             "chat_template_kwargs", "continue_final_message"})
        prompt.shape(body, name);
    take_prompt(prompt, body, request);
}

void read_completions(const Json& body, const EngineOptions& options, GenerateRequest& request) {
    read_sampling(body, options, request);
    check_model(request, options);
    const Json* prompt = find_member(body, "prompt");
    const auto empty = [&] {
        refuse(
            bad_value("Either prompt or prompt_embeds must be provided and non-empty.", "prompt"));
    };
    if (prompt == nullptr) empty();
    const auto add = [&](const Json& each) {
        PromptBuilder builder;
        if (each.is_string()) {
            builder.add_text(each.get_ref<const std::string&>());
        } else if (each.is_array()) {
            builder.set_tokens(token_list(each));
        } else {
            const std::string input = python_input(&each);
            constexpr std::string_view kList = "Input should be a valid list";
            refuse(invalid_body({{"list_type", "prompt", kList, input},
                                 {"list_type", "prompt", kList, input},
                                 {"string_type", "prompt", "Input should be a valid string", input},
                                 {"list_type", "prompt", kList, input}}));
        }
        builder.shape(body, "suffix");
        builder.shape(body, "response_format");
        request.prompts.push_back(builder.finish(body, request.echo, request.return_token_ids));
    };
    if (prompt->is_array() && prompt->empty())
        refuse(bad_request("You must pass at least one prompt"));
    if (prompt->is_array() && !(*prompt)[0].is_number()) {
        if (prompt->size() > kPromptsMax) refuse(bad_request("too many prompts", "prompt"));
        for (const Json& each : *prompt) add(each);
    } else {
        add(*prompt);
    }
    for (const Prompt& each : request.prompts)
        if (each.tokens == 0) empty();
}

void read_responses(const Json& body, const EngineOptions& options, GenerateRequest& request) {
    const Json* input = find_member(body, "input");
    if (input == nullptr)
        refuse(invalid_body({"missing", "input", "Field required", python_input(&body)}));
    if (!input->is_string() && !input->is_array())
        refuse(invalid_body(
            {"string_type", "input", "Input should be a valid string", python_input(input)}));
    read_sampling(body, options, request);
    check_model(request, options);
    PromptBuilder prompt;
    read_tools(prompt, body, options);
    if (const auto instructions = string_member(body, "instructions"))
        prompt.add_text("<|im_start|>system\n" + *instructions + "<|im_end|>\n");
    if (input->is_string()) {
        prompt.add_text("<|im_start|>user\n" + input->get<std::string>() + "<|im_end|>\n");
    } else {
        for (const Json& item : *input) {
            const Json* role = item.is_object() ? find_member(item, "role") : nullptr;
            if (role != nullptr) {
                add_message(prompt, item);
            } else {
                prompt.add_json(item);
            }
        }
    }
    prompt.add_text("<|im_start|>assistant\n");
    for (const char* name : {"text", "reasoning", "previous_response_id"}) prompt.shape(body, name);
    take_prompt(prompt, body, request);
}

void read_messages(const Json& body, const EngineOptions& options, GenerateRequest& request) {
    for (const char* name : {"messages", "max_tokens"})
        if (!body.contains(name))
            refuse(invalid_body({"missing", name, "Field required", python_input(&body)}));
    const Json& messages = body["messages"];
    if (!messages.is_array())
        refuse(invalid_body(
            {"list_type", "messages", "Input should be a valid list", python_input(&messages)}));
    read_sampling(body, options, request);
    check_model(request, options);
    if (messages.empty()) refuse(bad_request("messages must not be empty", "messages"));
    PromptBuilder prompt;
    if (const Json* tools = find_member(body, "tools")) prompt.add_json(*tools);
    if (const Json* system = find_member(body, "system")) {
        prompt.add_text("<|im_start|>system\n");
        add_content(prompt, *system);
        prompt.add_text("<|im_end|>\n");
    }
    for (const Json& message : messages) add_message(prompt, message);
    prompt.add_text("<|im_start|>assistant\n");
    for (const char* name : {"tool_choice", "thinking"}) prompt.shape(body, name);
    take_prompt(prompt, body, request);
}

std::expected<GenerateRequest, Refusal> read_request(Api api, std::string_view text,
                                                     const EngineOptions& options) {
    auto body = parse_body(text);
    if (!body) return std::unexpected(Refusal{body.error(), nullptr});
    GenerateRequest request;
    request.api = api;
    try {
        request.kv = read_kv_params(*body);
        switch (api) {
            case Api::Chat:
                read_chat(*body, options, request);
                break;
            case Api::Completions:
                read_completions(*body, options, request);
                break;
            case Api::Responses:
                read_responses(*body, options, request);
                break;
            case Api::Messages:
                read_messages(*body, options, request);
                break;
        }
        check_room(request, options);
    } catch (const BodyError& error) {
        return std::unexpected(Refusal{error.error, request.kv});
    } catch (const Json::exception& error) {
        return std::unexpected(
            Refusal{invalid_body({"value_error", "", "the body cannot be read", {}}), request.kv});
    }
    return request;
}

}  // namespace sluice::engine
