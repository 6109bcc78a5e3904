// Tells torch that a CUDA device is there, so that tensors may say `cuda:0` on a CPU.
#include <ATen/detail/CUDAHooksInterface.h>

namespace {
struct Pretended : at::CUDAHooksInterface {
  bool hasPrimaryContext(c10::DeviceIndex) const override { return false; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  void init() const override {}
  bool hasCUDA() const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex current_device() const override { return 0; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  // attention asks for these
  long versionCuDNN() const override { return 0; }
  long versionRuntimeCuDNN() const override { return 0; }
  long versionCuDNNFrontend() const override { return 0; }
};

Pretended pretended;
void* before = nullptr;

void*& behaviour_of(const void* hooks) { return *(void**)hooks; }
}  // namespace

extern "C" void begin() {
  const void* hooks = &at::detail::getCUDAHooks();
  if (before == nullptr) before = behaviour_of(hooks);
  behaviour_of(hooks) = behaviour_of(&pretended);
}

extern "C" void end() {
  if (before != nullptr) behaviour_of(&at::detail::getCUDAHooks()) = before;
}
