// Feeds a file of bench/parts/plain_flow.py to liquibook (BSD licence, not part of this project) and prints what came of it.
//   liquibook_flow FLOW BEFORE LATENCIES
// Orders are made and looked up as a program around a book has to. Reading the file and the first BEFORE lines are not
// measured.
#include <book/order_book.h>
#include <book/types.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iostream>
#include <memory>
#include <new>
#include <unordered_map>
#include <vector>

using namespace liquibook::book;

static uint64_t allocations = 0;
void* operator new(std::size_t size) {
  ++allocations;
  if (void* made = std::malloc(size)) return made;
  throw std::bad_alloc();
}
void operator delete(void* gone) noexcept { std::free(gone); }
void operator delete(void* gone, std::size_t) noexcept { std::free(gone); }

struct Limit {
  bool buys;
  Price at;
  Quantity lots;
  bool is_buy() const { return buys; }
  Price price() const { return at; }
  Price stop_price() const { return 0; }
  Quantity order_qty() const { return lots; }
  bool all_or_none() const { return false; }
  bool immediate_or_cancel() const { return false; }
};

typedef OrderBook<Limit*> Flat;

struct Count : TradeListener<Flat> {
  uint64_t lots = 0, turnover = 0;
  void on_trade(const Flat*, Quantity qty, Cost cost) override {
    lots += qty;
    turnover += cost;
  }
};

struct Line {
  int64_t id, symbol, side, price, quantity;
};

struct Run {
  Count count;
  std::unordered_map<int64_t, std::unique_ptr<Flat>> books;
  std::unordered_map<int64_t, Limit*> orders;
  void take(const Line& line) {
    auto& book = books[line.symbol];
    if (!book) {
      book.reset(new Flat());
      book->set_trade_listener(&count);
    }
    if (line.price) {
      Limit* order = new Limit{line.side > 0, Price(line.price), Quantity(line.quantity)};
      orders.emplace(line.id, order);
      book->add(order);
    } else {
      auto found = orders.find(line.id);
      book->cancel(found->second);
      delete found->second;
      orders.erase(found);
    }
  }
};

static double processor() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return now.tv_sec + now.tv_nsec / 1e9;
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const std::size_t before = std::strtoull(argv[2], nullptr, 10);
  std::vector<Line> lines;
  std::ifstream file(argv[1]);
  for (Line line; file >> line.id >> line.symbol >> line.side >> line.price >> line.quantity;) lines.push_back(line);

  Run whole;
  for (std::size_t at = 0; at < before; ++at) whole.take(lines[at]);
  uint64_t made = allocations;
  double began = processor();
  for (std::size_t at = before; at < lines.size(); ++at) whole.take(lines[at]);
  double seconds = processor() - began;
  made = allocations - made;

  Run again;
  std::vector<int64_t> each;
  each.reserve(lines.size());
  for (std::size_t at = 0; at < lines.size(); ++at) {
    auto start = std::chrono::steady_clock::now();
    again.take(lines[at]);
    if (at >= before) each.push_back((std::chrono::steady_clock::now() - start).count());
  }
  std::ofstream(argv[3], std::ios::binary).write(reinterpret_cast<char*>(each.data()), each.size() * 8);
  std::cout << "{\"seconds\": " << seconds << ", \"lots\": " << whole.count.lots << ", \"turnover\": "
            << whole.count.turnover << ", \"allocations\": " << double(made) / double(lines.size() - before) << "}\n";
}
