# SPDX-License-Identifier: Apache-2.0
#
# sluice_flags: how our own code is compiled. A target, not global flags, so that it is one word where it applies.

add_library(sluice_flags INTERFACE)
target_include_directories(sluice_flags INTERFACE "${PROJECT_SOURCE_DIR}/src")

target_compile_options(sluice_flags INTERFACE
    -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
    -Wnon-virtual-dtor -Woverloaded-virtual -Wcast-align
    $<$<BOOL:${SLUICE_MARCH}>:-march=${SLUICE_MARCH}>
    $<$<BOOL:${SLUICE_WERROR}>:-Werror>)

if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # At -O3, g++ 12 reports these in correct code that it has inlined, the standard library's included (GCC bugs
    # 105651, 105562, 107852 among others). clang and the sanitizers cover them; here they stay visible, but no errors.
    target_compile_options(sluice_flags INTERFACE
        -Wno-restrict -Wno-error=maybe-uninitialized -Wno-error=array-bounds
        -Wno-error=stringop-overflow -Wno-error=stringop-overread -Wno-error=dangling-pointer)
endif()

if(SLUICE_SANITIZE)
    set(sanitize -fsanitize=${SLUICE_SANITIZE} -fno-sanitize-recover=all)
    target_compile_options(sluice_flags INTERFACE ${sanitize})
    target_link_options(sluice_flags INTERFACE ${sanitize})
endif()
if(SLUICE_FUZZ)
    target_compile_options(sluice_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
