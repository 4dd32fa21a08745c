// A small runtime of element-wise and row operators: it reads ONNX files, and computes each node in double, rounded to its type.
//   runtime --serve [--seconds FILE]    answers messages; each graph that is unloaded adds a line to FILE: the seconds of reading and computing it
//   runtime --compile MODEL ARTIFACT    writes what it knows, as it is; ends with 3 where the graph has another operator or type
//   runtime ARTIFACT INPUTS OUTPUTS     makes the calls in INPUTS/0, INPUTS/1 ...
// With --fault at the end, Elu is exp(x) - 1 in float32, which loses every digit of small numbers.
#include "actconform_serve.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <memory>

namespace fs = std::filesystem;
using actconform::Tensor;
using actconform::Tensors;

bool fault = false;

struct Array {
  std::vector<std::int64_t> shape;
  std::vector<double> values;
};

// The fields of a message in protobuf's format, as those of ONNX files are.
struct Field {
  std::uint64_t number = 0, integer = 0;  // the latter of a varint, or the bits of a fixed number
  std::string bytes;
};

class Fields {
 public:
  explicit Fields(const std::string& content) : content_(content) {}

  bool next(Field& field) {
    if (at_ == content_.size()) return false;
    const std::uint64_t key = varint();
    field.number = key >> 3;
    const std::uint64_t kind = key & 7;
    if (kind == 0) field.integer = varint();
    else field.bytes = taken(kind == 2 ? varint() : kind == 5 ? 4 : 8);
    if (kind == 5 || kind == 1) {
      field.integer = 0;
      std::memcpy(&field.integer, field.bytes.data(), field.bytes.size());
    }
    return true;
  }

  std::uint64_t varint() {
    std::uint64_t number = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(taken(1)[0]);
      number |= std::uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) break;
    }
    return number;
  }

  bool ended() const { return at_ == content_.size(); }

 private:
  std::string taken(std::uint64_t size) {
    if (size > content_.size() - at_) throw std::runtime_error("an ONNX file is cut off");
    at_ += static_cast<std::size_t>(size);
    return content_.substr(at_ - static_cast<std::size_t>(size), static_cast<std::size_t>(size));
  }

  const std::string& content_;
  std::size_t at_ = 0;
};

// Returns what a message has under a number, last one first in force; empty where it has nothing.
std::string part(const std::string& message, std::uint64_t number) {
  std::string bytes;
  Fields fields(message);
  for (Field field; fields.next(field);)
    if (field.number == number) bytes = field.bytes;
  return bytes;
}

std::string type_name(std::uint64_t element_type) {
  static const std::map<std::uint64_t, std::string> kTypes = {{1, "f32"}, {7, "i64"}, {9, "bool"}, {10, "f16"}, {16, "bf16"}};
  if (!kTypes.count(element_type)) throw actconform::Unsupported("tensors of element type " + std::to_string(element_type));
  return kTypes.at(element_type);
}

struct Node {
  std::string name, output, type;
  std::vector<std::string> inputs;
  std::map<std::string, double> attributes;
  double attribute(const std::string& key, double otherwise) const {
    const auto at = attributes.find(key);
    return at == attributes.end() ? otherwise : static_cast<float>(at->second);
  }
};

double rounded(double value, const std::string& type) {
  if (type == "f32") return static_cast<float>(value);
  if (type == "f16") return actconform::float16_to_float(actconform::float_to_float16(static_cast<float>(value)));
  if (type == "bf16") return actconform::bfloat16_to_float(actconform::float_to_bfloat16(static_cast<float>(value)));
  return value;
}

std::string dtype_of(const std::string& type) { return type == "f32" ? "<f4" : type == "f16" ? "<f2" : type == "bf16" ? "<u2" : "|b1"; }

Array array_of(const Tensor& tensor, const std::string& type) {
  Array array{tensor.shape, std::vector<double>(tensor.size())};
  for (std::size_t i = 0; i < array.values.size(); ++i) {
    if (type == "f32") array.values[i] = tensor.values<float>()[i];
    if (type == "f16") array.values[i] = actconform::float16_to_float(tensor.values<std::uint16_t>()[i]);
    if (type == "bf16") array.values[i] = actconform::bfloat16_to_float(tensor.values<std::uint16_t>()[i]);
    if (type == "bool") array.values[i] = tensor.values<unsigned char>()[i];
  }
  return array;
}

Tensor tensor_of(const Array& array, const std::string& type) {
  Tensor tensor = Tensor::zeros(dtype_of(type), array.shape);
  for (std::size_t i = 0; i < array.values.size(); ++i) {
    const float value = static_cast<float>(array.values[i]);
    if (type == "f32") tensor.values<float>()[i] = value;
    if (type == "f16") tensor.values<std::uint16_t>()[i] = actconform::float_to_float16(value);
    if (type == "bf16") tensor.values<std::uint16_t>()[i] = actconform::float_to_bfloat16(value);
    if (type == "bool") tensor.values<unsigned char>()[i] = value != 0;
  }
  return tensor;
}

double maximum(double a, double b) { return std::isnan(a) || std::isnan(b) ? a + b : std::max(a, b); }
double minimum(double a, double b) { return std::isnan(a) || std::isnan(b) ? a + b : std::min(a, b); }

using Function = std::function<double(const Node&, const std::vector<double>&)>;
const std::map<std::string, Function> kElementwise = {
    {"Abs", [](const Node&, const auto& x) { return std::fabs(x[0]); }},
    {"Add", [](const Node&, const auto& x) { return x[0] + x[1]; }},
    {"Clip", [](const Node&, const auto& x) { return minimum(maximum(x[0], x[1]), x[2]); }},
    {"Div", [](const Node&, const auto& x) { return x[0] / x[1]; }},
    {"Elu", [](const Node& n, const auto& x) {
       if (fault && x[0] < 0) return double{static_cast<float>(std::exp(static_cast<float>(x[0]))) - 1.0f};
       return x[0] < 0 ? n.attribute("alpha", 1) * std::expm1(x[0]) : x[0];
     }},
    {"Exp", [](const Node&, const auto& x) { return std::exp(x[0]); }},
    {"Greater", [](const Node&, const auto& x) { return double(x[0] > x[1]); }},
    {"HardSigmoid", [](const Node& n, const auto& x) {
       return minimum(maximum(n.attribute("alpha", 0.2f) * x[0] + n.attribute("beta", 0.5), 0), 1);
     }},
    {"Identity", [](const Node&, const auto& x) { return x[0]; }},
    {"LeakyRelu", [](const Node& n, const auto& x) { return x[0] < 0 ? n.attribute("alpha", 0.01f) * x[0] : x[0]; }},
    {"Less", [](const Node&, const auto& x) { return double(x[0] < x[1]); }},
    {"LessOrEqual", [](const Node&, const auto& x) { return double(x[0] <= x[1]); }},
    {"Max", [](const Node&, const auto& x) { return maximum(x[0], x[1]); }},
    {"Min", [](const Node&, const auto& x) { return minimum(x[0], x[1]); }},
    {"Mul", [](const Node&, const auto& x) { return x[0] * x[1]; }},
    {"Neg", [](const Node&, const auto& x) { return -x[0]; }},
    {"Or", [](const Node&, const auto& x) { return double(x[0] || x[1]); }},
    {"Reciprocal", [](const Node&, const auto& x) { return 1 / x[0]; }},
    {"Relu", [](const Node&, const auto& x) { return maximum(x[0], 0); }},
    {"Selu", [](const Node& n, const auto& x) {
       const double alpha = n.attribute("alpha", 1.67326319217681884765625f), gamma = n.attribute("gamma", 1.05070102214813232421875f);
       return gamma * (x[0] < 0 ? alpha * std::expm1(x[0]) : x[0]);
     }},
    {"Sigmoid", [](const Node&, const auto& x) { return 1 / (1 + std::exp(-x[0])); }},
    {"Softplus", [](const Node&, const auto& x) { return maximum(x[0], 0) + std::log1p(std::exp(-std::fabs(x[0]))); }},
    {"Softsign", [](const Node&, const auto& x) { return std::isinf(x[0]) ? std::copysign(1, x[0]) : x[0] / (1 + std::fabs(x[0])); }},
    {"Sqrt", [](const Node&, const auto& x) { return std::sqrt(x[0]); }},
    {"Sub", [](const Node&, const auto& x) { return x[0] - x[1]; }},
    {"Tanh", [](const Node&, const auto& x) { return std::tanh(x[0]); }},
    {"ThresholdedRelu", [](const Node& n, const auto& x) { return x[0] > n.attribute("alpha", 1) ? x[0] : std::isnan(x[0]) ? x[0] : 0; }},
    {"Where", [](const Node&, const auto& x) { return x[0] ? x[1] : x[2]; }},
};

class Graph {
 public:
  explicit Graph(const std::string& model) {
    const std::string graph = part(model, 7);
    Fields fields(graph);
    std::vector<std::string> nodes;
    for (Field field; fields.next(field);) {
      if (field.number == 1) nodes.push_back(field.bytes);
      if (field.number == 5) read_constant(field.bytes);
      if (field.number == 11) types_[part(field.bytes, 1)] = inputs_[part(field.bytes, 1)] = input_type(field.bytes);
      if (field.number == 12) outputs_.push_back(part(field.bytes, 1));
    }
    for (const auto& node : nodes) read_node(node);
  }

  Tensors run(const Tensors& inputs) const {
    std::map<std::string, Array> arrays = constants_;
    for (const auto& [name, type] : inputs_) {
      if (!inputs.count(name)) throw std::runtime_error("there is no input " + name);
      arrays[name] = array_of(inputs.at(name), type);
    }
    for (const Node& node : nodes_) {
      std::vector<const Array*> operands;
      for (const auto& name : node.inputs)
        if (!name.empty()) operands.push_back(&arrays.at(name));
      Array result = node.name == "Softmax" || node.name == "ReduceSum" ? of_rows(node, *operands.at(0)) : of_elements(node, operands);
      for (double& value : result.values) value = rounded(value, node.type);
      arrays[node.output] = std::move(result);
    }
    Tensors outputs;
    for (const auto& name : outputs_) outputs[name] = tensor_of(arrays.at(name), types_.at(name));
    return outputs;
  }

 private:
  std::map<std::string, std::string> inputs_, types_;
  std::vector<std::string> outputs_;
  std::map<std::string, Array> constants_;
  std::vector<Node> nodes_;

  static std::string input_type(const std::string& described) {
    Field field;
    const std::string tensor = part(part(described, 2), 1);
    for (Fields fields(tensor); fields.next(field);)
      if (field.number == 1 && type_name(field.integer) != "i64") return type_name(field.integer);
    throw actconform::Unsupported("inputs of other types than tensors of floats and booleans");
  }

  void read_constant(const std::string& tensor) {
    Array constant;
    std::string name, type, raw;
    Fields fields(tensor);
    for (Field field; fields.next(field);) {
      if (field.number == 1 && field.bytes.empty()) constant.shape.push_back(static_cast<std::int64_t>(field.integer));
      if (field.number == 1)
        for (Fields dims(field.bytes); !dims.ended();) constant.shape.push_back(static_cast<std::int64_t>(dims.varint()));
      if (field.number == 2) type = type_name(field.integer);
      if (field.number == 8) name = field.bytes;
      if (field.number == 4 || field.number == 9) raw = field.bytes;
      if (field.number == 5 || field.number == 7) throw actconform::Unsupported("constants that are not raw");
    }
    if (type == "i64")
      for (std::size_t i = 0; i + 8 <= raw.size(); i += 8) {
        std::int64_t number;
        std::memcpy(&number, raw.data() + i, sizeof number);
        constant.values.push_back(static_cast<double>(number));
      }
    else
      constant = array_of(Tensor{dtype_of(type), constant.shape, {raw.begin(), raw.end()}}, type);
    types_[name] = type;
    constants_[name] = std::move(constant);
  }

  void read_node(const std::string& message) {
    Node node;
    Fields fields(message);
    for (Field field; fields.next(field);) {
      if (field.number == 1) node.inputs.push_back(field.bytes);
      if (field.number == 2) node.output = field.bytes;
      if (field.number == 4) node.name = field.bytes;
      if (field.number == 5) read_attribute(field.bytes, node);
      if (field.number == 7 && !field.bytes.empty()) throw actconform::Unsupported("operators of " + field.bytes);
    }
    const bool of_rows = node.name == "Softmax" || node.name == "ReduceSum";
    if (!of_rows && !kElementwise.count(node.name)) throw actconform::Unsupported("no operator " + node.name);
    const auto axes = node.name == "ReduceSum" && node.inputs.size() > 1 ? constants_.find(node.inputs[1]) : constants_.end();
    if (node.attribute("axis", -1) != -1 || (axes != constants_.end() && axes->second.values != std::vector<double>{-1}))
      throw actconform::Unsupported(node.name + " on another axis than the last");
    static const std::string kComparisons = " Greater Less LessOrEqual Or ";
    const bool compares = kComparisons.find(" " + node.name + " ") != std::string::npos;
    node.type = compares ? "bool" : types_.at(node.inputs.at(node.name == "Where" ? 1 : 0));
    types_[node.output] = node.type;
    nodes_.push_back(std::move(node));
  }

  static void read_attribute(const std::string& message, Node& node) {
    Fields fields(message);
    for (Field field; fields.next(field);) {
      if (field.number == 2) node.attributes[part(message, 1)] = actconform::bits_to_float(static_cast<std::uint32_t>(field.integer));
      if (field.number == 3) node.attributes[part(message, 1)] = static_cast<double>(static_cast<std::int64_t>(field.integer));
    }
  }

  static Array of_elements(const Node& node, const std::vector<const Array*>& operands) {
    const Function& function = kElementwise.at(node.name);
    Array result;
    for (const Array* operand : operands) {
      auto shape = operand->shape;
      while (shape.size() < result.shape.size()) shape.insert(shape.begin(), 1);
      while (result.shape.size() < shape.size()) result.shape.insert(result.shape.begin(), 1);
      for (std::size_t axis = 0; axis < shape.size(); ++axis) {
        if (result.shape[axis] == 1) result.shape[axis] = shape[axis];
        if (shape[axis] != 1 && shape[axis] != result.shape[axis]) throw std::runtime_error(node.name + ": shapes do not fit");
      }
    }
    std::size_t size = 1;
    for (auto dim : result.shape) size *= static_cast<std::size_t>(dim);
    result.values.resize(size);
    std::vector<double> numbers(operands.size());
    for (std::size_t i = 0; i < size; ++i) {
      for (std::size_t k = 0; k < operands.size(); ++k) numbers[k] = operands[k]->values[place(*operands[k], result.shape, i, size)];
      result.values[i] = function(node, numbers);
    }
    return result;
  }

  // Returns where the operand has the element that is broadcast to element i of the result.
  static std::size_t place(const Array& operand, const std::vector<std::int64_t>& shape, std::size_t i, std::size_t size) {
    if (operand.values.size() == size) return i;
    std::size_t at = 0, stride = 1;
    for (std::size_t back = 1; back <= operand.shape.size(); ++back) {
      const auto dim = static_cast<std::size_t>(shape[shape.size() - back]);
      const auto own = static_cast<std::size_t>(operand.shape[operand.shape.size() - back]);
      if (own != 1) at += stride * (i % dim);
      stride *= own;
      i /= dim;
    }
    return at;
  }

  static Array of_rows(const Node& node, const Array& x) {
    const auto n = static_cast<std::size_t>(x.shape.empty() ? 1 : x.shape.back());
    Array result = x;
    if (node.name == "ReduceSum") {
      result.shape.back() = 1;
      result.values.assign(n ? x.values.size() / n : 0, 0);
      for (std::size_t i = 0; i < x.values.size(); ++i) result.values[i / n] += x.values[i];
      return result;
    }
    for (std::size_t row = 0; n && row < x.values.size(); row += n) {
      double most = -std::numeric_limits<double>::infinity(), sum = 0;
      for (std::size_t i = row; i < row + n; ++i) most = maximum(most, x.values[i]);
      for (std::size_t i = row; i < row + n; ++i) sum += result.values[i] = std::exp(x.values[i] - most);
      for (std::size_t i = row; i < row + n; ++i) result.values[i] /= sum;
    }
    return result;
  }
};

std::string content_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

using Clock = std::chrono::steady_clock;

// Counts the seconds of reading a graph and of its calls, and adds them to a file at its end.
struct Timed {
  std::string file;
  Clock::time_point started = Clock::now();
  Graph graph;
  std::chrono::duration<double> seconds;

  Timed(const std::string& path, std::string file) : file(std::move(file)), graph(content_of(path)), seconds(Clock::now() - started) {}
  Timed(const Timed&) = delete;
  ~Timed() {
    if (!file.empty()) std::ofstream(file, std::ios::app) << seconds.count() << "\n";
  }

  Tensors run(const Tensors& inputs) {
    started = Clock::now();
    Tensors outputs = graph.run(inputs);
    seconds += Clock::now() - started;
    return outputs;
  }
};

int main(int count, char** words) {
  std::vector<std::string> arguments(words + 1, words + count);
  fault = !arguments.empty() && arguments.back() == "--fault";
  const std::string file = arguments.size() > 2 && arguments[1] == "--seconds" ? arguments[2] : "";
  if (!arguments.empty() && arguments[0] == "--serve")
    return actconform::serve("small runtime 1.0", [file](const std::string& path) -> actconform::Program {
      auto graph = std::make_shared<Timed>(path, file);
      return [graph](const Tensors& inputs) { return graph->run(inputs); };
    });
  try {
    if (arguments.at(0) == "--compile") {
      const std::string model = content_of(arguments.at(1));
      const Graph graph(model);
      std::ofstream(arguments.at(2), std::ios::binary) << model;
      return 0;
    }
    const Graph graph(content_of(arguments.at(0)));
    for (const auto& folder : fs::directory_iterator(arguments.at(1))) {
      Tensors inputs;
      for (const auto& file : fs::directory_iterator(folder)) inputs[file.path().stem()] = actconform::read_npy(content_of(file));
      for (const auto& [name, tensor] : graph.run(inputs))
        std::ofstream(fs::path(arguments.at(2)) / folder.path().filename() / (name + ".npy"), std::ios::binary) << actconform::write_npy(tensor);
    }
  } catch (const actconform::Unsupported& refusal) {
    std::cerr << refusal.what() << "\n";
    return 3;
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
