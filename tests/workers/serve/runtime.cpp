// A small runtime: it executes what compile_graph.py writes, each node in double and rounded to its type.
//   runtime --serve [--seconds FILE]    answers messages; when a graph is unloaded, FILE gets the seconds of computing its calls
//   runtime ARTIFACT INPUTS OUTPUTS     makes the calls in INPUTS/0, INPUTS/1 ...
// With --fault after either, Elu is exp(x) - 1 in float32, which loses every digit of small numbers.
#include "actconform_serve.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <memory>
#include <sstream>

namespace fs = std::filesystem;
using actconform::Tensor;
using actconform::Tensors;

bool fault = false;

struct Array {
  std::vector<std::int64_t> shape;
  std::vector<double> values;
};

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
  Tensor tensor = Tensor::zeros(type == "f32" ? "<f4" : type == "f16" ? "<f2" : type == "bf16" ? "<u2" : "|b1", array.shape);
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
  explicit Graph(const std::string& path) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error("there is no artifact " + path);
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line);
      std::string kind, name;
      words >> kind >> name;
      if (kind == "input") words >> inputs_[name];
      if (kind == "output") outputs_.push_back(name);
      if (kind == "constant") read_constant(words, constants_[name]);
      if (kind == "node") read_node(words, name);
    }
  }

  Tensors run(const Tensors& inputs) const {
    std::map<std::string, Array> arrays = constants_;
    for (const auto& [name, type] : inputs_) {
      if (!inputs.count(name)) throw std::runtime_error("there is no input " + name);
      arrays[name] = array_of(inputs.at(name), type);
    }
    std::map<std::string, std::string> types(inputs_.begin(), inputs_.end());
    for (const Node& node : nodes_) {
      std::vector<const Array*> operands;
      for (const auto& name : node.inputs)
        if (name != "-") operands.push_back(&arrays.at(name));
      Array result = node.name == "Softmax" || node.name == "ReduceSum" ? of_rows(node, *operands.at(0)) : of_elements(node, operands);
      for (double& value : result.values) value = rounded(value, node.type);
      arrays[node.output] = std::move(result);
      types[node.output] = node.type;
    }
    Tensors outputs;
    for (const auto& name : outputs_) outputs[name] = tensor_of(arrays.at(name), types.at(name));
    return outputs;
  }

 private:
  std::map<std::string, std::string> inputs_;
  std::vector<std::string> outputs_;
  std::map<std::string, Array> constants_;
  std::vector<Node> nodes_;

  static double number(const std::string& word) { return std::strtod(word.c_str(), nullptr); }

  static void read_constant(std::istringstream& words, Array& constant) {
    std::size_t rank;
    words >> rank;
    constant.shape.resize(rank);
    for (auto& dim : constant.shape) words >> dim;
    for (std::string word; words >> word;) constant.values.push_back(number(word));
  }

  void read_node(std::istringstream& words, const std::string& name) {
    Node node;
    node.name = name;
    std::size_t count;
    words >> node.output >> node.type >> count;
    node.inputs.resize(count);
    for (auto& input : node.inputs) words >> input;
    for (std::string word; words >> word;) {
      const auto at = word.find('=');
      node.attributes[word.substr(0, at)] = number(word.substr(at + 1));
    }
    nodes_.push_back(node);
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

// Counts the seconds of a graph's calls, and leaves them in a file at its end.
struct Timed {
  Graph graph;
  std::string file;
  std::chrono::duration<double> seconds{0};

  Timed(const std::string& path, std::string file) : graph(path), file(std::move(file)) {}
  Timed(const Timed&) = delete;
  ~Timed() {
    if (!file.empty()) std::ofstream(file) << seconds.count();
  }

  Tensors run(const Tensors& inputs) {
    const auto started = std::chrono::steady_clock::now();
    Tensors outputs = graph.run(inputs);
    seconds += std::chrono::steady_clock::now() - started;
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
    const Graph graph(arguments.at(0));
    for (const auto& folder : fs::directory_iterator(arguments.at(1))) {
      Tensors inputs;
      for (const auto& file : fs::directory_iterator(folder)) inputs[file.path().stem()] = actconform::read_npy(content_of(file));
      for (const auto& [name, tensor] : graph.run(inputs))
        std::ofstream(fs::path(arguments.at(2)) / folder.path().filename() / (name + ".npy"), std::ios::binary) << actconform::write_npy(tensor);
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
