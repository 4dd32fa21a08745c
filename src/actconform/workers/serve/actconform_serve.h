// A runtime that serves actconform over its standard input and output. C++17, no dependencies, one file.
//
//     #include "actconform_serve.h"
//     int main() {
//       return actconform::serve("myrt 1.2", [](const std::string& path) -> actconform::Program {
//         auto graph = std::make_shared<Graph>(path);  // an ONNX file, or what `prepare` made of it
//         return [graph](const actconform::Tensors& inputs) -> actconform::Tensors { return graph->run(inputs); };
//       });
//     }
//
// Throw actconform::Unsupported where the runtime does not do what a graph or a call asks: its text is the reason. Any other
// exception is an error of that request alone. Print what you like: standard output leads to standard error while it serves.
// The format of the messages is in docs/runtimes-that-compile.md. SPDX-License-Identifier: Apache-2.0
#ifndef ACTCONFORM_SERVE_H
#define ACTCONFORM_SERVE_H

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include <unistd.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "messages and .npy are little endian: this machine needs its bytes swapped"
#endif

namespace actconform {

constexpr const char* kProtocol = "1";
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 30;  // of all blobs of a message
constexpr std::uint32_t kMostBlobs = 1 << 16;
constexpr std::uint32_t kLongestName = 1 << 16;

enum Kind : std::uint32_t { kHello = 1, kLoad = 2, kCall = 3, kUnload = 4, kBye = 5, kDone = 16, kUnsupported = 17, kError = 18 };

struct Unsupported : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The messages themselves are broken: nothing that comes after can be read.
struct FrameError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// An array in C order. `dtype` is that of .npy: "<f4", "<f2", "<f8", "<i8", "<i4", "<i2", "|i1", "<u8", "<u4", "<u2", "|u1", "|b1".
// bfloat16 comes and goes as "<u2", its bits: the graph says what it is.
struct Tensor {
  std::string dtype = "<f4";
  std::vector<std::int64_t> shape;
  std::vector<unsigned char> data;

  static std::size_t item_size(const std::string& dtype) {
    static const char* const kDtypes[] = {"<f4", "<f2", "<f8", "<i8", "<i4", "<i2", "|i1", "<u8", "<u4", "<u2", "|u1", "|b1"};
    for (const char* known : kDtypes)
      if (dtype == known) return static_cast<std::size_t>(dtype[2] - '0');
    throw Unsupported("tensors of dtype " + dtype);
  }

  std::size_t size() const {
    std::size_t product = 1;
    for (std::int64_t dim : shape) product *= static_cast<std::size_t>(dim);
    return product;
  }

  template <typename T>
  const T* values() const {
    if (sizeof(T) != item_size(dtype)) throw std::runtime_error("a tensor of " + dtype + " is read as another type");
    return reinterpret_cast<const T*>(data.data());
  }

  template <typename T>
  T* values() {
    return const_cast<T*>(static_cast<const Tensor*>(this)->values<T>());
  }

  // A tensor of zeros.
  static Tensor zeros(const std::string& dtype, const std::vector<std::int64_t>& shape) {
    Tensor tensor{dtype, shape, {}};
    tensor.data.resize(tensor.size() * item_size(dtype));
    return tensor;
  }
};

using Tensors = std::map<std::string, Tensor>;
using Program = std::function<Tensors(const Tensors&)>;
using Load = std::function<Program(const std::string& path)>;

inline float bits_to_float(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline std::uint32_t float_to_bits(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float bfloat16_to_float(std::uint16_t bits) { return bits_to_float(std::uint32_t{bits} << 16); }

// Rounds to nearest, ties to even; NaN stays NaN.
inline std::uint16_t float_to_bfloat16(float value) {
  const std::uint32_t bits = float_to_bits(value);
  if (value != value) return static_cast<std::uint16_t>((bits >> 16) | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float float16_to_float(std::uint16_t half) {
  const std::uint32_t sign = std::uint32_t{half & 0x8000u} << 16, exponent = (half >> 10) & 0x1f, fraction = half & 0x3ff;
  if (exponent == 0x1f) return bits_to_float(sign | 0x7f800000u | (fraction << 13));
  if (exponent != 0) return bits_to_float(sign | ((exponent + 112) << 23) | (fraction << 13));
  const float magnitude = static_cast<float>(fraction) * bits_to_float(0x33800000u);  // 2^-24
  return sign ? -magnitude : magnitude;
}

// Rounds to nearest, ties to even; subnormal numbers stay, NaN stays NaN.
inline std::uint16_t float_to_float16(float value) {
  const std::uint32_t bits = float_to_bits(value), magnitude = bits & 0x7fffffffu;
  const std::uint16_t sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x47800000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // 65536 and more
  if (magnitude < 0x33000000u) return sign;                                         // below 2^-25
  // Bits to drop: 13 for a normal half, more for a subnormal one, whose leading bit is written out.
  const std::uint32_t exponent = magnitude >> 23;
  const bool normal = exponent >= 113;
  const std::uint32_t drop = normal ? 13 : 126 - exponent;
  const std::uint32_t digits = normal ? magnitude - (std::uint32_t{112} << 23) : (magnitude & 0x7fffffu) | 0x800000u;
  const std::uint32_t kept = digits >> drop, rest = digits & ((std::uint32_t{1} << drop) - 1), half = std::uint32_t{1} << (drop - 1);
  return static_cast<std::uint16_t>(sign | (kept + (rest > half || (rest == half && (kept & 1)))));
}

namespace detail {

// Requests, read ahead: a message is many small parts.
class Requests {
 public:
  explicit Requests(int file) : file_(file), ahead_(std::size_t{1} << 16) {}

  bool read_exactly(void* buffer, std::size_t size, bool may_end = false) {
    auto* at = static_cast<unsigned char*>(buffer);
    for (std::size_t done = 0; done < size;) {
      std::size_t count = std::min(size - done, end_ - begin_);
      if (count != 0) {
        std::memcpy(at + done, ahead_.data() + begin_, count);
        begin_ += count;
      } else if (size - done < ahead_.size()) {
        begin_ = 0;
        end_ = some(ahead_.data(), ahead_.size());
        if (end_ != 0) continue;
      } else {
        count = some(at + done, size - done);
      }
      if (count == 0) {
        if (may_end && done == 0) return false;
        throw FrameError("the requests end within a message");
      }
      done += count;
    }
    return true;
  }

 private:
  // Returns how many bytes came, 0 at the end.
  std::size_t some(void* buffer, std::size_t size) {
    for (;;) {
      const ssize_t count = ::read(file_, buffer, size);
      if (count >= 0) return static_cast<std::size_t>(count);
      if (errno != EINTR) return 0;
    }
  }

  int file_;
  std::vector<unsigned char> ahead_;
  std::size_t begin_ = 0, end_ = 0;
};

inline void write_exactly(int file, const void* buffer, std::size_t size) {
  const auto* at = static_cast<const unsigned char*>(buffer);
  for (std::size_t done = 0; done < size;) {
    const ssize_t count = ::write(file, at + done, size - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw FrameError("nobody reads the answers");
    done += static_cast<std::size_t>(count);
  }
}

using Blobs = std::map<std::string, std::string>;

struct Frame {
  std::uint32_t kind = 0, graph = 0;
  Blobs blobs;
};

inline bool read_frame(Requests& requests, Frame& frame) {
  unsigned char head[16];
  if (!requests.read_exactly(head, sizeof head, true)) return false;
  std::uint32_t count;
  std::memcpy(&frame.kind, head + 4, 4);
  std::memcpy(&frame.graph, head + 8, 4);
  std::memcpy(&count, head + 12, 4);
  if (std::memcmp(head, "ACS1", 4) != 0 || count > kMostBlobs) throw FrameError("this is no message");
  frame.blobs.clear();
  std::uint64_t left = kMostBytes;
  for (std::uint32_t i = 0; i < count; ++i) {
    unsigned char sizes[12];
    requests.read_exactly(sizes, sizeof sizes);
    std::uint32_t name_size;
    std::uint64_t size;
    std::memcpy(&name_size, sizes, 4);
    std::memcpy(&size, sizes + 4, 8);
    if (name_size > kLongestName || size > left) throw FrameError("a message is larger than 1 GiB");
    left -= size;
    std::string name(name_size, '\0');
    requests.read_exactly(&name[0], name_size);
    std::string content(static_cast<std::size_t>(size), '\0');
    requests.read_exactly(&content[0], content.size());
    frame.blobs[name] = std::move(content);
  }
  return true;
}

inline void write_frame(int file, const Frame& frame) {
  std::string text("ACS1");
  const auto append = [&text](const auto& number) { text.append(reinterpret_cast<const char*>(&number), sizeof number); };
  append(frame.kind);
  append(frame.graph);
  append(static_cast<std::uint32_t>(frame.blobs.size()));
  for (const auto& blob : frame.blobs) {
    append(static_cast<std::uint32_t>(blob.first.size()));
    append(static_cast<std::uint64_t>(blob.second.size()));
    text += blob.first;
    text += blob.second;
  }
  write_exactly(file, text.data(), text.size());
}

inline std::string header_value(const std::string& header, const std::string& key) {
  const std::size_t at = header.find("'" + key + "':");
  if (at == std::string::npos) throw std::runtime_error("a .npy header has no " + key);
  std::size_t begin = header.find_first_not_of(' ', at + key.size() + 3);
  if (begin == std::string::npos) throw std::runtime_error("a .npy header ends after " + key);
  const char close = header[begin] == '(' ? ')' : header[begin] == '\'' ? '\'' : ',';
  const std::size_t end = header.find(close, begin + 1);
  if (end == std::string::npos) throw std::runtime_error("a .npy header ends within " + key);
  if (close != ',') ++begin;
  return header.substr(begin, end - begin);
}

}  // namespace detail

// Returns the tensor of the content of a .npy file: one whole array in C order, little endian.
inline Tensor read_npy(const std::string& content) {
  if (content.size() < 12 || content.compare(0, 6, "\x93NUMPY") != 0) throw std::runtime_error("this is no .npy array");
  const bool small = content[6] == 1;
  std::size_t length = static_cast<unsigned char>(content[8]) | static_cast<std::size_t>(static_cast<unsigned char>(content[9])) << 8;
  if (!small) length |= static_cast<std::size_t>(static_cast<unsigned char>(content[10])) << 16 | static_cast<std::size_t>(static_cast<unsigned char>(content[11])) << 24;
  const std::size_t start = (small ? 10 : 12) + length;
  if (start > content.size()) throw std::runtime_error("a .npy header is cut off");
  const std::string header = content.substr(small ? 10 : 12, length);
  if (detail::header_value(header, "fortran_order") != "False") throw std::runtime_error("a .npy array in Fortran's order");
  Tensor tensor;
  tensor.dtype = detail::header_value(header, "descr");
  const std::string shape = detail::header_value(header, "shape");
  std::uint64_t bytes = Tensor::item_size(tensor.dtype);
  for (std::size_t at = 0; (at = shape.find_first_of("0123456789", at)) != std::string::npos;) {
    const std::size_t end = std::min(shape.find_first_not_of("0123456789", at), shape.size());
    const std::int64_t dim = std::stoll(shape.substr(at, end - at));
    tensor.shape.push_back(dim);
    if (dim > 0 && bytes > kMostBytes / static_cast<std::uint64_t>(dim)) throw std::runtime_error("a .npy array is too large");
    bytes *= static_cast<std::uint64_t>(dim);
    at = end;
  }
  if (bytes != content.size() - start) throw std::runtime_error("a .npy array has more or fewer bytes than its shape says");
  tensor.data.assign(content.begin() + static_cast<std::ptrdiff_t>(start), content.end());
  return tensor;
}

// Returns the content of the .npy file that holds the tensor.
inline std::string write_npy(const Tensor& tensor) {
  if (tensor.data.size() != tensor.size() * Tensor::item_size(tensor.dtype))
    throw std::runtime_error("a tensor has more or fewer bytes than its shape says");
  std::string shape;
  for (std::int64_t dim : tensor.shape) shape += std::to_string(dim) + ", ";
  if (tensor.shape.size() > 1) shape.resize(shape.size() - 2);
  if (tensor.shape.size() == 1) shape.resize(shape.size() - 1);
  std::string header = "{'descr': '" + tensor.dtype + "', 'fortran_order': False, 'shape': (" + shape + "), }";
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  std::string content("\x93NUMPY\x01\x00", 8);
  content += static_cast<char>(header.size() & 0xff);
  content += static_cast<char>(header.size() >> 8);
  content += header;
  content.append(reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size());
  return content;
}

namespace detail {

inline Blobs result(const std::string& about, const Load& load, std::map<std::uint32_t, Program>& graphs, const Frame& request) {
  Blobs blobs;
  const auto blob = [&request](const char* name) {
    const auto at = request.blobs.find(name);
    return at == request.blobs.end() ? std::string() : at->second;
  };
  if (request.kind == kHello) {
    if (blob("protocol") != kProtocol) throw std::runtime_error("protocol " + blob("protocol") + " is asked for; this is " + kProtocol);
    blobs["protocol"] = kProtocol;
    blobs["about"] = about;
  } else if (request.kind == kLoad) {
    graphs[request.graph] = load(blob("path"));
  } else if (request.kind == kCall) {
    const auto graph = graphs.find(request.graph);
    if (graph == graphs.end()) throw std::runtime_error("no graph of that number is loaded");
    Tensors inputs;
    for (const auto& input : request.blobs) inputs[input.first] = read_npy(input.second);
    for (const auto& output : graph->second(inputs)) blobs[output.first] = write_npy(output.second);
  } else if (request.kind == kUnload) {
    graphs.erase(request.graph);
  } else {
    throw std::runtime_error("no request is of that kind");
  }
  return blobs;
}

}  // namespace detail

// Answers requests until they end, and returns the exit code of the process. `about` says what the runtime is, with its version.
inline int serve(const std::string& about, const Load& load) {
  const int file = ::dup(0), answers = ::dup(1);
  if (file < 0 || answers < 0 || ::dup2(2, 1) < 0) return 1;
  detail::Requests requests(file);
  std::map<std::uint32_t, Program> graphs;
  detail::Frame request;
  try {
    while (detail::read_frame(requests, request) && request.kind != kBye) {
      detail::Frame answer;
      answer.graph = request.graph;
      try {
        answer.kind = kDone;
        answer.blobs = detail::result(about, load, graphs, request);
      } catch (const Unsupported& refusal) {
        answer.kind = kUnsupported;
        answer.blobs = {{"message", refusal.what()}};
      } catch (const std::exception& error) {
        answer.kind = kError;
        answer.blobs = {{"message", error.what()}};
      }
      detail::write_frame(answers, answer);
    }
  } catch (const FrameError& error) {
    const std::string words = std::string(error.what()) + "\n";
    if (::write(2, words.data(), words.size()) < 0) return 1;
    return 1;
  }
  return 0;
}

}  // namespace actconform

#endif  // ACTCONFORM_SERVE_H
