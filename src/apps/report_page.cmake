# generated/apps/report_page_parts.h: the files of the report page and the atlas, compiled in (report_page.cpp).
set(REPORT_PAGE_PARTS "")
foreach(part report_page.html report_page.css report_charts.js report_samples.js report_page.js atlas_page.html
        atlas_page.js)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/${part}")
  file(READ "${CMAKE_CURRENT_LIST_DIR}/${part}" text)
  string(APPEND REPORT_PAGE_PARTS "    {\"${part}\", R\"part(${text})part\"},\n")
endforeach()
file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/generated/apps/report_page_parts.h" @ONLY CONTENT [[
#pragma once
#include <string_view>
#include <utility>

namespace tessera {

inline constexpr std::pair<std::string_view, std::string_view> kReportPageParts[] = {
@REPORT_PAGE_PARTS@};

}  // namespace tessera
]])
