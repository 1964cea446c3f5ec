// For train/ and what is linked with it: LibTorch's headers take seconds a file otherwise.
#pragma once
#include "base/precompiled.h"
#include "train/torch.h"
