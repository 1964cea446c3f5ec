// What the program's commands include, precompiled once.
#pragma once
#include <CLI/CLI.hpp>
#include <iostream>

#include "base/precompiled.h"
